// Package pluginv1 is the contract kbs.plugin.v1 of external plugins of a Key
// Broker Service: messages and the service generated from plugin.proto, and the
// constants of the handshake with a host that starts the plugin itself.
//
// The Go names are ours, the wire is that of Trustee (Confidential Containers):
// package, service and field numbers must not change.
package pluginv1

// Contract is the name of this contract in a manifest, and Service that of the
// gRPC service, also for grpc.health.v1.
const (
	Contract = "kbs.plugin.v1"
	Service  = "kbs.plugin.v1.KbsPlugin"
)

// The handshake of a plugin process that a host has started: go-plugin's core
// protocol 1, gRPC only. A plugin that finds no such variable serves an address,
// as under Trustee.
const (
	CookieKey       = "SALLYPORT_PLUGIN"
	CookieValue     = Contract
	ProtocolVersion = 1
)

// SetName is the plugin-set name under which a host dispenses the service.
const SetName = "kbs"

// The limits of Trustee, which are ours: of the body of a request, and of a
// message of a plugin.
const (
	MaxBodyBytes    = 2 << 20
	MaxMessageBytes = 4 << 20
)
