package plugin

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// Before the collector has run once there is no ballast, and afterwards there is, at
// the usual pace.
func TestCalm_ChangesWithTheFirstRun(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	held := calm().(chan []byte)
	if len(held) != 0 {
		t.Fatal("the ballast is there before")
	}
	runtime.GC()
	b := <-held
	if len(b) != ballast {
		t.Fatalf("%d bytes of ballast", len(b))
	}
	for pace := 0; pace != 100; runtime.Gosched() {
		pace = debug.SetGCPercent(100)
	}
}
