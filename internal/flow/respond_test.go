package flow_test

import (
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/signal"
)

func leak(value string) signal.Signal {
	return signal.Signal{Value: secret.FromString(value), Source: "scanner", Location: "repository x", Reason: "found"}
}
