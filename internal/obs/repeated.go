package obs

import "time"

// Repeated keeps a log from saying the same again and again: work that is tried
// several times a second fails for hours while a disk is full, and the log may lie
// on that disk. The zero value is ready; it is for one goroutine.
type Repeated struct {
	text string
	at   time.Time
}

// New reports whether a text is to be logged: one that differs from the last that
// was, or was logged more than a minute ago.
func (r *Repeated) New(text string, now time.Time) bool {
	if d := now.Sub(r.at); text == r.text && d >= 0 && d <= time.Minute { // a clock can be set back
		return false
	}
	r.text, r.at = text, now
	return true
}
