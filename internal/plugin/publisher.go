package plugin

import (
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Publisher is somebody whose packages an operator lets run: a row of table
// publishers. The keys are rows of their own ([Key]).
type Publisher struct {
	Name      string    `json:"name"` // the row's id
	Version   int64     `json:"-"`
	Threshold int       `json:"threshold"` // distinct keys that must have signed
	Serial    int64     `json:"serial"`    // of the last [Rotation] that was applied
	At        time.Time `json:"at"`
	Author    string    `json:"author"`
}

// maxThreshold is the most keys that can sign a package.
const maxThreshold = maxSignatures

// NewPublisher makes the row of a publisher of whom one key must have signed.
func NewPublisher(name, author string, now time.Time) (Publisher, error) {
	if !manifest.ValidName(name) {
		return Publisher{}, fault.Invalidf("the publisher must be lower-case letters, digits and inner hyphens, at most 64")
	}
	return Publisher{Name: name, Version: 1, Threshold: 1, At: now, Author: author}, nil
}

// Demand is the row in its next version, with another threshold: at least one,
// and at most as many as the publisher has active keys, since no package of it
// would run else. keys are those of all publishers.
func (p Publisher) Demand(threshold int, keys []Key, author string, now time.Time) (Publisher, error) {
	if threshold < 1 || threshold > maxThreshold {
		return Publisher{}, fault.Invalidf("a threshold is from 1 to %d", maxThreshold)
	}
	if have := len(p.active(keys)); threshold > have {
		return Publisher{}, fault.Conflictf("publisher %s has %d active keys: trust %d more first, or no package of it could run", p.Name, have, threshold-have)
	}
	if threshold == p.Threshold {
		return Publisher{}, fault.Conflictf("publisher %s needs %d signatures already", p.Name, threshold)
	}
	p.Version, p.Threshold, p.At, p.Author = p.Version+1, threshold, now, author
	return p, nil
}

// active are the publisher's active keys for packages, by id.
func (p Publisher) active(keys []Key) map[string]Key {
	out := map[string]Key{}
	for _, k := range keys {
		if k.Publisher == p.Name && k.State == Active && k.Use == UsePackage {
			out[k.ID] = k
		}
	}
	return out
}

// Table names the store's table.
func (Publisher) Table() string { return "publishers" }

// Columns gives the row: id (name), version, threshold, serial, at
// (microseconds), author.
func (p Publisher) Columns() []any {
	return []any{p.Name, p.Version, int64(p.Threshold), p.Serial, unit.Micros(p.At), p.Author}
}

// Scan fills the row from columns in the order of [Publisher.Columns].
func (p *Publisher) Scan(scan unit.Scanner) error {
	var threshold, at int64
	if err := scan(&p.Name, &p.Version, &threshold, &p.Serial, &at, &p.Author); err != nil {
		return err
	}
	if threshold < 1 || threshold > maxThreshold {
		return fault.Internalf("publisher row %s has a threshold that is out of range", p.Name)
	}
	p.Threshold, p.At = int(threshold), unit.Moment(at)
	return nil
}
