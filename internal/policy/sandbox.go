package policy

import (
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// allowed is the whole vocabulary of a document. It is a list of what is in, not
// of what is out, so that a newer engine adds nothing by itself.
//
// Left out, and why: http.send, net.lookup_ip_addr, opa.runtime, providers.*
// (reach outside, or reveal the host); net.cidr_expand (a network has 2^128
// addresses) and its other kin, of which net.cidr_contains alone is needed and
// does nothing but arithmetic; crypto.*, io.jwt.* (keys and tokens are judged by the
// host, and Trustee's engine lacks them); rand.intn, uuid.rfc4122 (a decision
// must be repeatable from its input); rego.*, trace (reflection and side effects;
// a call of print is accepted and erased by the compiler); json.match_schema, json.verify_schema, graphql.*, yaml.*,
// strings.render_template (large foreign parsers, schema references reach the
// network); bits.lsh (unbounded memory). time.now_ns is in: it answers the time
// of the request, never the clock of the host.
var allowed = []string{
	"assign", "eq", "equal", "gt", "gte", "lt", "lte", "neq",
	"internal.member_2", "internal.member_3", "internal.template_string",
	"abs", "ceil", "div", "floor", "minus", "mul", "numbers.range", "numbers.range_step", "plus", "rem", "round",
	"bits.and", "bits.negate", "bits.or", "bits.rsh", "bits.xor",
	"and", "intersection", "or", "set_diff", "union",
	"count", "max", "min", "product", "sort", "sum",
	"array.concat", "array.flatten", "array.reverse", "array.slice",
	"object.filter", "object.get", "object.keys", "object.remove", "object.subset", "object.union", "object.union_n",
	"concat", "contains", "endswith", "format_int", "indexof", "indexof_n", "lower", "replace", "split", "sprintf",
	"startswith", "strings.any_prefix_match", "strings.any_suffix_match", "strings.count", "strings.replace_n",
	"strings.reverse", "strings.split_n", "substring", "trim", "trim_left", "trim_prefix", "trim_right", "trim_space",
	"trim_suffix", "upper",
	"glob.match", "glob.quote_meta",
	"regex.find_all_string_submatch_n", "regex.find_n", "regex.is_valid", "regex.match", "regex.replace", "regex.split",
	"base64.decode", "base64.encode", "base64.is_valid", "base64url.decode", "base64url.encode",
	"base64url.encode_no_pad", "hex.decode", "hex.encode",
	"json.filter", "json.is_valid", "json.marshal", "json.patch", "json.remove", "json.unmarshal",
	"urlquery.decode", "urlquery.decode_object", "urlquery.encode", "urlquery.encode_object",
	"semver.compare", "semver.is_valid", "units.parse", "units.parse_bytes", "uuid.parse",
	"is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "to_number", "type_name",
	"graph.reachable", "graph.reachable_paths", "walk",
	"net.cidr_contains",
	"time.add_date", "time.clock", "time.date", "time.diff", "time.format", "time.now_ns", "time.parse_duration_ns",
	"time.parse_ns", "time.parse_rfc3339_ns", "time.weekday",
}

// referenceValue is Trustee's extension for attestation policies (kbs.md 3.7).
var referenceValue = &ast.Builtin{
	Name: "query_reference_value",
	Decl: types.NewFunction(types.Args(types.S), types.A),
}

// vocabulary makes what documents of a kind may call. The engine only reads it,
// and it is the same for ever, so it is made once.
func vocabulary(k Kind) *ast.Capabilities {
	if k == KBSAttestation {
		return attestationVocabulary()
	}
	return commonVocabulary()
}

var commonVocabulary = sync.OnceValue(func() *ast.Capabilities { return newVocabulary() })

var attestationVocabulary = sync.OnceValue(func() *ast.Capabilities { return newVocabulary(referenceValue) })

func newVocabulary(extra ...*ast.Builtin) *ast.Capabilities {
	in := make(map[string]bool, len(allowed))
	for _, n := range allowed {
		in[n] = true
	}
	c := ast.CapabilitiesForThisVersion()
	kept := make([]*ast.Builtin, 0, len(allowed)+len(extra))
	for _, b := range c.Builtins {
		if in[b.Name] {
			kept = append(kept, b)
		}
	}
	c.Builtins = append(kept, extra...)
	c.AllowNet = []string{} // not nil: nil would let the type checker fetch schemas
	return c
}
