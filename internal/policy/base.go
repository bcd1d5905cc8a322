package policy

import (
	_ "embed" // the texts of the documents
	"time"
)

// Texts of documents that operators begin with or copy from.
var (
	//go:embed rego/base.rego
	baseText string
	//go:embed rego/resource.rego
	resourceText string
	//go:embed rego/default_cpu.rego
	defaultCPUText string
	//go:embed rego/default_gpu.rego
	defaultGPUText string

	//go:embed rego/example-ssh.rego
	exampleSSH string
	//go:embed rego/example-freeze.rego
	exampleFreeze string
	//go:embed rego/resource-allow-all.rego
	resourceAllowAll string
	//go:embed rego/resource-deny-all.rego
	resourceDenyAll string
	//go:embed rego/resource-affirming.rego
	resourceAffirming string
)

// Names under which Trustee knows its policies.
const (
	BaseName     = "base"
	ResourceName = "resource-policy"
	CPUName      = "default_cpu"
	GPUName      = "default_gpu"
)

// Installed are the documents of a new installation, in version 1: administrators
// may administer, auditors read the audit, reporters report leaks, agents enrol
// with a join token, and nothing is released; the default policies of the Key
// Broker Service refuse what only the sample verifier vouches for.
func Installed(at time.Time) []Document {
	return []Document{
		{Name: BaseName, Version: 1, Kind: Sallyport, Source: baseText, At: at, State: Active},
		{Name: ResourceName, Version: 1, Kind: KBSResource, Source: resourceText, At: at, State: Active},
		{Name: CPUName, Version: 1, Kind: KBSAttestation, Source: defaultCPUText, At: at, State: Active},
		{Name: GPUName, Version: 1, Kind: KBSAttestation, Source: defaultGPUText, At: at, State: Active},
	}
}

// ExampleSSH is a document of kind [Sallyport]: agents with the role deployer
// get certificates for OpenSSH within bounds.
func ExampleSSH() string { return exampleSSH }

// ExampleFreeze is a document of kind [Sallyport] that vetoes every release.
func ExampleFreeze() string { return exampleFreeze }

// ResourceAllowAll is a document of kind [KBSResource] for trials: every token
// fetches everything.
func ResourceAllowAll() string { return resourceAllowAll }

// ResourceDenyAll is a document of kind [KBSResource] that refuses everybody.
func ResourceDenyAll() string { return resourceDenyAll }
