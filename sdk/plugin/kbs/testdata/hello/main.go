// Command hello answers GET /kbs/v0/external/hello/greeting/NAME, sealed to the
// guest, and takes new greetings from administrators.
package main

import (
	"context"
	"log"
	"sync/atomic"

	"github.com/sallyport-project/sallyport/sdk/plugin/kbs"
)

type hello struct {
	kbs.Defaults
	greeting atomic.Value
}

// ValidateAuth leaves changes to administrators.
func (h *hello) ValidateAuth(_ context.Context, r *kbs.Request) (bool, error) {
	return r.Method != "GET", nil
}

// Handle greets, or changes the greeting.
func (h *hello) Handle(_ context.Context, r *kbs.Request) (*kbs.Response, error) {
	if r.Method == "POST" {
		h.greeting.Store(string(r.Body))
		return &kbs.Response{}, nil
	}
	name, ok := r.Match("greeting/{name}")
	if !ok {
		return nil, kbs.Refusef(404, "ask for greeting/NAME")
	}
	return &kbs.Response{Body: []byte(h.greeting.Load().(string) + ", " + name["name"])}, nil
}

func main() {
	h := &hello{}
	h.greeting.Store("hello")
	if err := kbs.NewServer(h).Serve(context.Background()); err != nil {
		log.Fatal(err)
	}
}
