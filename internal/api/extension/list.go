package extension

import (
	"strings"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// item is one extension in the list.
type item struct {
	Name        string         `json:"name"` // as the attestation platform writes it: my_ext
	Plugin      string         `json:"plugin"`
	Version     string         `json:"version"`
	Description string         `json:"description"`
	Prefix      string         `json:"prefix,omitempty"`
	Digest      string         `json:"digest"`
	Routes      []plugin.Route `json:"routes"`
	Hooks       []string       `json:"hooks"`
	Gates       []string       `json:"gates"`
	Reason      plugin.Reason  `json:"reason"`
	LastError   string         `json:"last_error,omitempty"`
}

// listed is the answer: extensions and total, or a map from names to version and
// description.
func listed(all []plugin.Extension, asMap bool) any {
	short := map[string]map[string]string{}
	items := []item{}
	for _, e := range all {
		i := item{
			Name: strings.ReplaceAll(e.Plugin, "-", "_"), Plugin: e.Plugin, Version: e.Version, Description: e.Summary, Prefix: e.Prefix, Digest: e.Digest,
			Routes: append([]plugin.Route{}, e.Routes...), Hooks: append([]string{}, e.Hooks...), Gates: append([]string{}, e.Gates...),
			Reason: e.Reason, LastError: e.Detail,
		}
		items = append(items, i)
		short[i.Name] = map[string]string{"version": i.Version, "description": i.Description}
	}
	if asMap {
		return short
	}
	return map[string]any{"extensions": items, "total": len(items)}
}
