// Package pluginv1 is the contract agentkms.plugin.v1: messages and services
// generated from plugin.proto, and the constants of its handshake.
//
// The Go names are ours, the wire is AgentKMS's: package, services, field
// numbers, cookie and plugin-set names must not change.
package pluginv1

import _ "embed" // plugin.proto

// The handshake of a plugin process: go-plugin's core protocol 1, gRPC only.
const (
	CookieKey       = "PLUGIN_MAGIC_COOKIE"
	CookieValue     = "agentkms_plugin_v1"
	ProtocolVersion = 1
)

// Contract is the name of this contract in a manifest.
const Contract = "agentkms.plugin.v1"

// The plugin-set names under which a host dispenses the four services.
const (
	SetScopeValidator   = "scope_validator"
	SetScopeAnalyzer    = "scope_analyzer"
	SetScopeSerializer  = "scope_serializer"
	SetCredentialVender = "credential_vender"
)

// CapabilitiesMethod is the full name of the optional RPC Capabilities of a service:
// that of its other methods with another end.
func CapabilitiesMethod(service string) string { return "/" + service + "/Capabilities" }

// APIVersion is the version of the contract that is described here, as
// CapabilitiesResponse has it.
const APIVersion = 1

//go:embed plugin.proto
var source string

// Proto is the contract's proto file, for those who make code of it in another
// language.
func Proto() string { return source }
