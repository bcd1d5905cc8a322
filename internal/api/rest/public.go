package rest

import (
	"context"
	"net/http"
)

// Status is how the server does.
type Status struct {
	Version          string         `json:"version"`
	Storage          string         `json:"storage" doc:"sqlite or postgresql"`
	Ready            bool           `json:"ready" doc:"Whether it gives what policy allows; if not, trouble says why."`
	Writable         bool           `json:"writable" doc:"Whether everything can be recorded. What cannot is refused."`
	Trouble          []string       `json:"trouble" nullable:"false" doc:"What does not work now, and what is refused for it."`
	Weak             []string       `json:"weak" nullable:"false" doc:"Configuration that weakens something, by name."`
	Reference        []string       `json:"reference" nullable:"false" doc:"Endorsements and reference values that have expired, or expire within a week."`
	BrokenRows       int64          `json:"broken_rows" doc:"Rows that were found altered since the start; not 0 calls for an investigation."`
	Ledger           LedgerStatus   `json:"ledger"`
	Plugins          []PluginStatus `json:"plugins" nullable:"false" doc:"On the replica that answers."`
	PolicyGeneration int64          `json:"policy_generation"`
}

// LedgerStatus is how long the ledger is.
type LedgerStatus struct {
	Size uint64 `json:"size" doc:"Records below the newest checkpoint."`
}

// public are the routes that say how the server does and what it is known by.
func (d *Door) public() []route {
	return []route{
		endpoint(route{
			id: "read-status", method: http.MethodGet, path: "/v1/status", tag: "server", summary: "Tell how the server does",
			about: "For operators.",
		}, d.status),
		endpoint(route{
			id: "read-ca", method: http.MethodGet, path: "/v1/ca", tag: "server", open: true, kind: "application/x-pem-file",
			summary: "Read the roots of the server's authority", about: "The present one first; a replaced one until it is retired. They prove nothing to who does not know a hash.",
		}, func(context.Context, *exchange, none) (text, error) { return text{d.cfg.Root()}, nil }),
		endpoint(route{
			id: "read-ssh-ca", method: http.MethodGet, path: "/v1/ssh/ca", tag: "server", open: true, kind: "text/plain; charset=utf-8",
			summary: "Read the keys that sign SSH user certificates", about: "Lines of authorized_keys, for TrustedUserCAKeys of sshd.",
		}, func(ctx context.Context, _ *exchange, _ none) (text, error) {
			data, err := d.cfg.SSHAuthority(ctx)
			return text{data}, err
		}),
		endpoint(route{
			id: "read-ssh-krl", method: http.MethodGet, path: "/v1/ssh/krl", tag: "server", open: true, kind: binaryKind,
			summary: "Read the revoked SSH certificates", about: "OpenSSH's binary form, for RevokedKeys of sshd.",
		}, func(ctx context.Context, _ *exchange, _ none) (text, error) {
			data, err := d.cfg.SSHRevocations(ctx)
			return text{data}, err
		}),
		endpoint(route{
			id: "read-openapi", method: http.MethodGet, path: "/openapi.json", tag: "server", open: true, kind: "application/openapi+json",
			summary: "Read this document",
		}, func(context.Context, *exchange, none) (text, error) { return text{d.document}, nil }),
	}
}

func (d *Door) status(ctx context.Context, x *exchange, _ none) (Status, error) {
	if err := d.cfg.Gate.Oversee(ctx, x.caller); err != nil {
		return Status{}, err
	}
	s, err := d.cfg.Status(ctx)
	s.Weak, s.Reference, s.Trouble = filled(s.Weak), filled(s.Reference), filled(s.Trouble)
	if s.Plugins == nil {
		s.Plugins = []PluginStatus{}
	}
	return s, err
}
