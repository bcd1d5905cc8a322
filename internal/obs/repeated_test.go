package obs

import (
	"testing"
	"time"
)

func TestRepeated_LetsTheSameThroughOnceAMinute(t *testing.T) {
	var r Repeated
	start := time.Unix(0, 0)
	for _, tt := range []struct {
		text  string
		after time.Duration
		want  bool
	}{
		{"full", 0, true},
		{"full", 30 * time.Second, false},
		{"full", time.Minute, false},
		{"full", 61 * time.Second, true},
		{"full", 62 * time.Second, false},
		{"locked", 63 * time.Second, true},
		{"full", 64 * time.Second, true},
		{"full", -time.Hour, true},
		{"full", 10*time.Second - time.Hour, false},
	} {
		if got := r.New(tt.text, start.Add(tt.after)); got != tt.want {
			t.Errorf("%q after %s: %v, want %v", tt.text, tt.after, got, tt.want)
		}
	}
}
