package conformance

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/canon"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
)

// MaxRequests bounds a file of requests.
const MaxRequests = 1 << 20

const requestsDepth = 16

// Requests are what an author knows to be right: requests that the plugin
// grants, and a configuration that it takes. It is the file conformance.json.
type Requests struct {
	Requests []Request       `json:"requests,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"`
}

// Request is one request for a credential. Host has the parameters that the
// host adds, without their prefix; there $now and $expires stand for the time of
// the request and the end of its credential, in seconds since 1970.
type Request struct {
	Kind       string            `json:"kind"`
	Params     map[string]any    `json:"params,omitempty"`
	Host       map[string]string `json:"host,omitempty"`
	TTLSeconds int64             `json:"ttl_seconds,omitempty"` // default 300
}

// ReadRequests reads a file of requests strictly. A fault is Invalid.
func ReadRequests(data []byte) (Requests, error) {
	var r Requests
	if err := canon.Strict(data, MaxRequests, requestsDepth, &r); err != nil {
		return Requests{}, fault.Wrap(err, "read requests")
	}
	for _, q := range r.Requests {
		if q.TTLSeconds < 0 || q.TTLSeconds > int64(24*time.Hour/time.Second) {
			return Requests{}, fault.Invalidf("ttl_seconds of a request must be between 1 and a day")
		}
	}
	return r, nil
}

// example is a request to be tried.
type example struct {
	Request
	madeUp bool // from the manifest's form: the plugin may well refuse it
}

// examples are the given requests, else one made up for each kind.
func (r *run) examples() []example {
	var out []example
	for _, q := range r.Requests.Requests {
		out = append(out, example{Request: q})
	}
	if len(out) > 0 {
		return out
	}
	for _, kind := range r.m.Kinds {
		out = append(out, example{Request{Kind: kind, Params: sample(r.m.Params[kind])}, true})
	}
	return out
}

// sample gives a value for every required field of a form.
func sample(form manifest.Fields) map[string]any {
	out := map[string]any{}
	for name, f := range form {
		if f.Required {
			out[name] = sampleOf(f)
		}
	}
	return out
}

func sampleOf(f manifest.Field) any {
	text := "example"
	if len(f.Values) > 0 {
		text = f.Values[0]
	}
	switch f.Type {
	case manifest.TypeInteger:
		return 1.0
	case manifest.TypeBoolean:
		return true
	case manifest.TypeStrings:
		return []any{text}
	}
	return text
}

// scope is the request as a plugin sees it.
func (q Request) scope(now time.Time) grant.Scope {
	s := grant.Scope{Kind: q.Kind, Params: maps.Clone(q.Params), TTL: time.Duration(q.TTLSeconds) * time.Second}
	if s.TTL == 0 {
		s.TTL = 5 * time.Minute
	}
	if s.Params == nil {
		s.Params = map[string]any{}
	}
	for name, v := range q.Host {
		switch v {
		case "$now":
			v = strconv.FormatInt(now.Unix(), 10)
		case "$expires":
			v = strconv.FormatInt(now.Add(s.TTL).Unix(), 10)
		}
		s.Params[grant.HostPrefix+name] = v
	}
	return s
}

// open are bounds that allow exactly what is asked for.
func open(s grant.Scope) grant.Bounds { return grant.Bounds{Kind: s.Kind, MaxTTL: s.TTL} }

// callers lists the names of the parameters that a caller gives, sorted.
func callers(s grant.Scope) []string {
	names := slices.Sorted(maps.Keys(s.Params))
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, grant.HostPrefix) })
}

// settings is the configuration that the plugin gets: the given one, else what
// its form requires. Where the form has secrets, marker takes their place, if it
// is not empty.
func (r *run) settings(marker string) ([]byte, error) {
	if len(r.m.Config) == 0 {
		return r.Requests.Config, nil
	}
	values := sample(r.m.Config)
	if len(r.Requests.Config) > 0 {
		values = map[string]any{}
		if err := json.Unmarshal(r.Requests.Config, &values); err != nil {
			return nil, fault.Invalidf("config of the requests must be a JSON object").Because(err)
		}
	}
	for name, f := range r.m.Config {
		if f.Secret && f.Type == manifest.TypeString && marker != "" {
			values[name] = marker
		}
	}
	if len(values) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(values)
	return data, fault.Wrap(err, "encode configuration")
}

// secrets reports whether the configuration has a secret text.
func secrets(form manifest.Fields) bool {
	for _, f := range form {
		if f.Secret && f.Type == manifest.TypeString {
			return true
		}
	}
	return false
}
