// Package notify tells people what happened: a notification, the channels that
// carry it, and deliveries that are retried until they arrive or are given up.
//
// Telling is never part of deciding: a verb commits a delivery with its state
// change, and the delivery goes out afterwards.
package notify

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Urgency says how soon a person should look.
type Urgency string

// The urgencies.
const (
	Low      Urgency = "low"
	Elevated Urgency = "elevated"
	High     Urgency = "high"
)

// Notification is one message to people. It holds no secret.
type Notification struct {
	ID      string            `json:"id"` // stays the same over all attempts: receivers drop repeats by it
	Type    string            `json:"type"`
	At      time.Time         `json:"at"`
	Urgency Urgency           `json:"urgency"`
	Title   string            `json:"title"`
	Subject string            `json:"subject,omitempty"` // the owner
	Grant   string            `json:"grant,omitempty"`
	Address string            `json:"address,omitempty"` // where to act by hand
	Tags    []string          `json:"tags,omitempty"`
	Data    map[string]string `json:"data,omitempty"`
}

// Channel carries notifications to people or their tools.
type Channel interface {
	Name() string
	// Notify delivers once. An error means that it must be tried again, but
	// for faults of kind Invalid, which no repetition mends.
	Notify(ctx context.Context, n Notification) error
}

// Delivery is a notification on its way through one channel: one row of table
// deliveries. The id is the notification's id and the channel's name.
type Delivery struct {
	ID       string
	Version  int64
	Channel  string
	Message  Notification
	Attempts int64
	Due      time.Time // zero when it arrived or was given up
	Error    string    // of the last attempt, in our words
	Done     time.Time // zero unless it arrived
}

// Table names the store's table.
func (Delivery) Table() string { return "deliveries" }

// Columns gives the row in the order of the table's columns.
func (d Delivery) Columns() []any {
	message, err := json.Marshal(d.Message)
	if err != nil {
		message = []byte("{}") // unreachable: a notification is plain data
	}
	return []any{
		d.ID, d.Version, d.Channel, string(message), d.Attempts,
		unit.Micros(d.Due), d.Error, unit.Micros(d.Done),
	}
}

// Scan fills the delivery from columns in the order of Columns.
func (d *Delivery) Scan(scan unit.Scanner) error {
	var message string
	var due, done int64
	if err := scan(&d.ID, &d.Version, &d.Channel, &message, &d.Attempts, &due, &d.Error, &done); err != nil {
		return err
	}
	d.Message = Notification{}
	if err := json.Unmarshal([]byte(message), &d.Message); err != nil {
		return fault.Internalf("delivery %s has a broken message", d.ID).Because(err)
	}
	d.Due, d.Done = unit.Moment(due), unit.Moment(done)
	return nil
}

// Backoff is the pause before attempt n+1 after n failed ones: doubling from
// two seconds to fifteen minutes.
func Backoff(attempts int64) time.Duration {
	const first, most = 2 * time.Second, 15 * time.Minute
	if attempts < 1 {
		return first
	}
	if attempts > 10 {
		return most
	}
	return min(first<<(attempts-1), most)
}
