// Command route is an extension with one small route, for measuring.
package main

import (
	"github.com/sallyport-project/sallyport/sdk/plugin"
	"github.com/sallyport-project/sallyport/test/load/answers"
)

func main() {
	plugin.Serve(plugin.About{Name: "load-route", Version: "0.1.0"}, plugin.Extension{Routes: answers.Handler()})
}
