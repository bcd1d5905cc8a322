# Agents with the role deployer get certificates for OpenSSH: for these two
# accounts, from these networks, for at most fifteen minutes.
package sallyport

# A role that no document admits is refused at the door: this one is let in.
admit := {"allow": true, "reasons": ["deployers are known"]} if {
	input.subject.kind == "agent"
	input.subject.role == "deployer"
	input.evidence.kind in {"join-token", "certificate"}
	input.evidence.verified == true
}

release := {
	"allow": true,
	"bounds": {
		"kind": "ssh-user-cert",
		"max_params": {
			"principals": ["deploy", "rollback"],
			"source_addresses": ["127.0.0.0/8", "10.0.0.0/8"],
			"extensions": ["permit-pty"],
		},
		"max_ttl_seconds": 900,
	},
	"reasons": ["deployers may log in to deploy"],
} if {
	input.request.kind == "ssh-user-cert"
	input.subject.kind == "agent"
	input.subject.role == "deployer"
	input.subject.state in {"registered", "attested"}
}
