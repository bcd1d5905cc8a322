package main

import "testing"

// TestFilled_drawsWhatWasNotMetLately: in an installation that has outgrown all
// memory no session and no resource comes back while it could be remembered.
func TestFilled_drawsWhatWasNotMetLately(t *testing.T) {
	const remembered = 16 << 20 / 4096 // requests whose rows fit the server's memory: one has a token of two kilobytes
	var f filled
	var last [2][outgrown]int
	for i := 1; i < 20*outgrown; i++ {
		for which := range last {
			n := f.draw(outgrown)
			if before := last[which][n]; before > 0 && i-before < remembered {
				t.Fatalf("%d comes back after %d draws", n, i-before)
			}
			last[which][n] = i
		}
	}
	for which := range last {
		for n, at := range last[which] {
			if at == 0 {
				t.Fatalf("%d is never drawn", n)
			}
		}
	}
}
