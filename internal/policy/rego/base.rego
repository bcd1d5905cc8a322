# What every installation begins with. Nothing is released by it: add a document
# that allows release for the kinds of credential that you want to vend.
package sallyport

# Subjects whose life is in a state in which they may act at all.
live if input.subject.state in {"registered", "attested"}

administrator if {
	live
	input.subject.kind == "operator"
	input.subject.role == "administrator"
}

auditor if {
	live
	input.subject.kind == "operator"
	input.subject.role == "auditor"
}

# To read a stored secret in the clear: nobody may, until a document of yours
# allows it. Secrets are for attested guests.
reading if {
	input.target.kind == "resource"
	input.action == "read"
}

# Administrators may administer everything else, auditors may read the audit.
administer := {"allow": true, "reasons": ["administrator"]} if {
	administrator
	not reading
} else := {"allow": true, "reasons": ["auditor reads the audit"]} if {
	auditor
	input.target.kind == "audit"
	input.action in {"read", "list", "get", "verify", "prove", "export"}
}

# Leaks are reported by reporters, and by administrators.
respond := {"allow": true, "reasons": ["reporter"]} if {
	live
	input.subject.role == "reporter"
} else := {"allow": true, "reasons": ["administrator"]} if {
	administrator
}

# The roles that this document knows. Whoever has another one is refused at the
# door, until a document of yours admits it: see the example for deployers.
known if input.subject.role in {"administrator", "auditor", "reporter"}

# A newcomer enrols with a join token that the host knows and that names its
# role. Whoever is enrolled opens sessions with a certificate that the host
# verified. A workload whose evidence a verifier accepted gets a token that says
# what was found, and may fetch nothing by it alone; one that brings such a token
# of another service, which the configuration trusts, is as good.
admit := {"allow": true, "reasons": ["join token"]} if {
	known
	input.subject.kind in {"agent", "operator"}
	input.evidence.kind == "join-token"
	input.evidence.verified == true
	input.evidence.role == input.subject.role
} else := {"allow": true, "reasons": ["certificate"]} if {
	known
	live
	input.subject.kind in {"agent", "operator"}
	input.evidence.kind == "certificate"
	input.evidence.verified == true
} else := {"allow": true, "reasons": ["accepted evidence"]} if {
	input.subject.kind == "workload"
	input.evidence.kind in {"tee", "token"}
	input.evidence.verified == true
}
