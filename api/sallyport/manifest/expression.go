package manifest

import (
	"regexp"
	"sync"
)

// expression is a regular expression that is compiled when it is first asked.
// Every plugin has this package in it, and asks next to nothing of it: compiled at
// once, they all together were a third of what an idle plugin holds. Safe for
// concurrent use; not to be copied.
type expression struct {
	text string
	once sync.Once
	re   *regexp.Regexp
}

// MatchString reports whether s has a match.
func (e *expression) MatchString(s string) bool {
	e.once.Do(func() { e.re = regexp.MustCompile(e.text) })
	return e.re.MatchString(s)
}
