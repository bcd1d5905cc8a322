// Package pluginv1 is the contract sallyport.plugin.v1: messages and services
// generated from plugin.proto, and the constants of its handshake.
//
// plugin.proto has the rule by which the contract evolves.
package pluginv1

// The handshake of a plugin process: go-plugin's core protocol 1, gRPC only,
// over a unix socket in the directory that the host names.
const (
	CookieKey       = "SALLYPORT_PLUGIN"
	CookieValue     = "sallyport.plugin.v1"
	ProtocolVersion = 1
)

// Contract is the name of this contract in a manifest.
const Contract = "sallyport.plugin.v1"

// SetName is the plugin-set name under which a host dispenses the contract.
const SetName = "sallyport"

// HostPrefix begins the names of parameters that only the host may set.
const HostPrefix = "host."

// MaxMessageBytes is the size that a message has at most, in either direction,
// unless the host was configured otherwise.
const MaxMessageBytes = 4 << 20
