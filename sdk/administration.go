package sallyport

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Policy is a document in force; Source and Versions are set when one is read
// by name.
type Policy struct {
	Name     string          `json:"name"`
	Kind     string          `json:"kind"` // sallyport, kbs-resource or kbs-attestation
	Version  int64           `json:"version"`
	Author   string          `json:"author,omitempty"`
	At       time.Time       `json:"at"`
	State    string          `json:"state"`
	Source   string          `json:"source,omitempty"`
	Versions []PolicyVersion `json:"versions,omitempty"`
}

// PolicyVersion is one version of a document.
type PolicyVersion struct {
	Version int64     `json:"version"`
	Author  string    `json:"author,omitempty"`
	At      time.Time `json:"at"`
	State   string    `json:"state"`
}

// Policies lists the documents in force.
func (c *Client) Policies(ctx context.Context) (Page[Policy], error) {
	return list[Policy](ctx, c, get("/v1/policies"))
}

// Policy reads a document; version 0 is the newest.
func (c *Client) Policy(ctx context.Context, name string, version int64) (Policy, error) {
	r := get(join("/v1/policies/{}", name))
	if version > 0 {
		r.query = set("version", strconv.FormatInt(version, 10))
	}
	r.limit = maxList
	var out Policy
	_, err := c.do(ctx, r, &out)
	return out, err
}

// SetPolicy puts a new version of a document in force.
func (c *Client) SetPolicy(ctx context.Context, name, kind, source string) (Policy, error) {
	body := struct {
		Kind   string `json:"kind"`
		Source string `json:"source"`
	}{kind, source}
	var out Policy
	_, err := c.do(ctx, call{method: http.MethodPut, path: join("/v1/policies/{}", name), body: body, keyed: true}, &out)
	return out, err
}

// RemovePolicy takes a document out of force.
func (c *Client) RemovePolicy(ctx context.Context, name string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/policies/{}", name), keyed: true}, nil)
	return err
}

// Decision is what the documents decide together.
type Decision struct {
	Allow     bool           `json:"allow"`
	Bounds    map[string]any `json:"bounds"`
	Reasons   []string       `json:"reasons"`
	Documents []string       `json:"documents"`
}

// Explanation says how a decision came about.
type Explanation struct {
	Verb      string          `json:"verb"`
	Decision  Decision        `json:"decision"`
	Documents []DocumentTrace `json:"documents"`
}

// DocumentTrace is one document's part in a decision.
type DocumentTrace struct {
	Document string         `json:"document"` // name@version
	Vote     string         `json:"vote"`     // allow, deny, no opinion or broken
	Answer   any            `json:"answer,omitempty"`
	Bounds   map[string]any `json:"bounds,omitempty"`
	Error    string         `json:"error,omitempty"`
	Rules    []RuleTrace    `json:"rules"`
}

// RuleTrace is one rule that was looked at.
type RuleTrace struct {
	Rule       string `json:"rule"`
	Line       int    `json:"line"`
	Succeeded  bool   `json:"succeeded"`
	FailedLine int    `json:"failed_line,omitempty"`
	Failed     string `json:"failed,omitempty"`
}

// ExplainPolicy tells how a verb would be decided for an input.
func (c *Client) ExplainPolicy(ctx context.Context, verb string, input map[string]any) (Explanation, error) {
	body := struct {
		Verb  string         `json:"verb"`
		Input map[string]any `json:"input"`
	}{verb, input}
	var out Explanation
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/policies/explain", body: body, again: true, limit: maxList}, &out)
	return out, err
}

// Resource is a stored secret without its value.
type Resource struct {
	Path      string    `json:"path"` // repository/type/tag
	Version   int64     `json:"version"`
	Bytes     int64     `json:"bytes"` // length of the value
	Author    string    `json:"author,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	ChangedAt time.Time `json:"changed_at,omitzero"`
}

// Resources lists what is stored below a prefix.
func (c *Client) Resources(ctx context.Context, prefix, after string, limit int) (Page[Resource], error) {
	r := get("/v1/resources")
	r.query = set("prefix", prefix, "after", after, "limit", number(limit))
	return list[Resource](ctx, c, r)
}

// PutResource stores a secret at repository/type/tag, in place of what was
// there.
func (c *Client) PutResource(ctx context.Context, repository, kind, tag string, value []byte) (Resource, error) {
	var out Resource
	_, err := c.do(ctx, call{
		method: http.MethodPut, path: join("/v1/resources/{}/{}/{}", repository, kind, tag), raw: value, kind: "application/octet-stream",
		keyed: true,
	}, &out)
	return out, err
}

// DeleteResource removes a secret. Versions of its path go on counting. Older
// values stay readable for operators, or are taken away for good if erase is set,
// which may be asked for later too.
func (c *Client) DeleteResource(ctx context.Context, repository, kind, tag string, erase bool) error {
	r := call{method: http.MethodDelete, path: join("/v1/resources/{}/{}/{}", repository, kind, tag), keyed: true}
	if erase {
		r.query = set("erase", "true")
	}
	_, err := c.do(ctx, r, nil)
	return err
}

// ResourceVersion is what is or was stored at a path, without its value.
type ResourceVersion struct {
	Version  int64     `json:"version"`
	State    string    `json:"state"` // kept, gone or deletion
	Bytes    int64     `json:"bytes"`
	Author   string    `json:"author,omitempty"`
	StoredAt time.Time `json:"stored_at"`
}

// ResourceVersions lists what is and was stored at a path, the newest first.
func (c *Client) ResourceVersions(ctx context.Context, repository, kind, tag, after string, limit int) (Page[ResourceVersion], error) {
	r := get(join("/v1/resources/{}/{}/{}/versions", repository, kind, tag))
	r.query = set("after", after, "limit", number(limit))
	return list[ResourceVersion](ctx, c, r)
}

// ResourceValue is a secret in the clear.
type ResourceValue struct {
	Path     string    `json:"path"`
	Version  int64     `json:"version"`
	Author   string    `json:"author,omitempty"`
	StoredAt time.Time `json:"stored_at"`
	Value    Secret    `json:"value"` // any bytes
}

// ReadResource reads a stored secret: a version, or for 0 the present one. A new
// installation allows it to nobody, and each time is recorded.
func (c *Client) ReadResource(ctx context.Context, repository, kind, tag string, version int64) (ResourceValue, error) {
	const largest = 3 << 20 // 2 MiB in base64
	r := get(join("/v1/resources/{}/{}/{}", repository, kind, tag))
	if version != 0 {
		r.query = set("version", strconv.FormatInt(version, 10))
	}
	r.limit = largest
	var out ResourceValue
	if _, err := c.do(ctx, r, &out); err != nil {
		return ResourceValue{}, err
	}
	plain, err := base64.StdEncoding.DecodeString(out.Value.Reveal())
	if err != nil {
		return ResourceValue{}, fmt.Errorf("read value of resource: %w", err)
	}
	out.Value = NewSecret(string(plain))
	return out, nil
}

// Status is how the server does.
type Status struct {
	Version          string         `json:"version"`
	Storage          string         `json:"storage"`     // sqlite or postgres
	Ready            bool           `json:"ready"`       // gives what policy allows; if not, Trouble says why
	Writable         bool           `json:"writable"`    // everything can be recorded; what cannot is refused
	Trouble          []string       `json:"trouble"`     // what does not work now, and what is refused for it
	Weak             []string       `json:"weak"`        // configuration that weakens something
	Reference        []string       `json:"reference"`   // what has expired, or expires within a week
	BrokenRows       int64          `json:"broken_rows"` // rows that were found altered since the start
	Ledger           LedgerStatus   `json:"ledger"`
	Plugins          []PluginStatus `json:"plugins"`
	PolicyGeneration int64          `json:"policy_generation"`
}

// LedgerStatus is how long the ledger is.
type LedgerStatus struct {
	Size uint64 `json:"size"`
}

// Status asks how the server does.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	_, err := c.do(ctx, get("/v1/status"), &out)
	return out, err
}
