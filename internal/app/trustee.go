package app

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/toml"
)

// MaxTrustee bounds a configuration file of Trustee, in bytes.
const MaxTrustee = 1 << 20

// Imported is what became of a configuration of Trustee's key broker.
type Imported struct {
	Config map[string]any `json:"config"` // members of ours
	Notes  []string       `json:"notes"`  // what could not be carried over, or wants to be looked at
}

// ImportTrustee reads a configuration of Trustee's key broker, as TOML, YAML or
// JSON, with present or older keys, and says the same in our words. Every member
// is either carried over or named in a note: nothing is lost silently. A text
// that cannot be read is Invalid.
func ImportTrustee(text []byte, operator string) (Imported, error) {
	root, err := readForeign(text)
	if err != nil {
		return Imported{}, err
	}
	i := &importer{from: foreign{members: root}, kbs: map[string]any{}, out: map[string]any{}}
	i.listeners()
	i.tokens()
	i.attestationService()
	i.storage()
	i.admin(operator)
	i.plugins()
	i.rest("", i.from.members)
	if len(i.kbs) > 0 {
		i.out["kbs"] = i.kbs
	}
	i.note("listen: sallyport.yaml has this member already: put further below it, and append the others")
	i.note("verifiers.enabled: Trustee has every verifier that it was built with; name those whose evidence you take, for example [snp, tdx]")
	return Imported{i.out, i.notes}, nil
}

// readForeign reads whichever of the three forms it is.
func readForeign(text []byte) (map[string]any, error) {
	if len(text) > MaxTrustee {
		return nil, fault.Invalidf("the configuration is larger than %d bytes", MaxTrustee)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		if root, err := toml.Parse(string(text)); err == nil {
			return root, nil
		} else if bytes.Contains(text, []byte(" = ")) {
			return nil, err
		}
	}
	var root map[string]any
	if err := yaml.UnmarshalWithOptions(text, &root, yaml.Strict()); err != nil {
		return nil, fault.Invalidf("the file is no TOML, YAML or JSON of a key broker: %s", yaml.FormatError(err, false, false)).Because(err)
	}
	return root, nil
}

// foreign is a table of the file; what is taken is gone from it, so that the rest
// is what nobody knew.
type foreign struct{ members map[string]any }

func (f foreign) take(name string) any {
	v := f.members[name]
	delete(f.members, name)
	return v
}

func (f foreign) text(name string) string {
	switch v := f.take(name).(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

func (f foreign) yes(name string) bool { return f.text(name) == "true" }

// table takes a table. What is none stays, for the rest.
func (f foreign) table(name string) foreign {
	m, ok := f.members[name].(map[string]any)
	if !ok || m == nil {
		return foreign{map[string]any{}}
	}
	delete(f.members, name)
	return foreign{m}
}

func (f foreign) texts(name string) []string {
	v := f.take(name)
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	var out []string
	for _, one := range list {
		out = append(out, fmt.Sprint(one))
	}
	return out
}

// tables takes a list of tables. What is none stays, for the rest.
func (f foreign) tables(name string) []foreign {
	list, ok := f.members[name].([]any)
	if !ok {
		return nil
	}
	var out []foreign
	var others []any
	for _, one := range list {
		if m, ok := one.(map[string]any); ok {
			out = append(out, foreign{m})
		} else {
			others = append(others, one)
		}
	}
	delete(f.members, name)
	if len(others) > 0 {
		f.members[name] = others
	}
	return out
}

// either joins a section under its present and its older name; what stands in
// both is as in the present one.
func (f foreign) either(name, older string) foreign {
	present, before := f.table(name), f.table(older)
	for name, v := range before.members {
		if _, there := present.members[name]; !there {
			present.members[name] = v
		}
	}
	return present
}

type importer struct {
	from     foreign
	out, kbs map[string]any
	notes    []string
}

func (i *importer) note(format string, args ...any) {
	i.notes = append(i.notes, fmt.Sprintf(format, args...))
}

// rest names what nobody took, in the order of the names.
func (i *importer) rest(at string, v any) {
	m, ok := v.(map[string]any)
	if !ok {
		i.note("%s: this member is not known and was left out", strings.TrimPrefix(at, "."))
		return
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		i.rest(at+"."+name, m[name])
	}
}

// listeners carries http_server, whose members stood at the top once.
func (i *importer) listeners() {
	h := i.from.table("http_server")
	older := len(h.members) == 0
	if older {
		h = i.from
	}
	sockets := h.texts("sockets")
	if len(sockets) == 0 {
		sockets = []string{"127.0.0.1:8080"}
	}
	plain := h.yes("insecure_http")
	certificate, key := h.text("certificate"), h.text("private_key")
	speaks := i.tls(h)
	var further []any
	for n, socket := range sockets {
		l := map[string]any{"name": fmt.Sprint("guests-", n+1), "address": socket, "doors": []any{"kbs"}}
		if plain {
			l["plain"] = true
		} else {
			set(l, "certificate", certificate)
			set(l, "key", key)
			if len(speaks) > 0 {
				l["tls"] = speaks
			}
		}
		further = append(further, l)
	}
	i.out["listen"] = map[string]any{"further": further}
	if plain {
		i.note("insecure_http: guests are served without TLS, as before: secrets stay sealed, but whoever is in between sees who fetches what")
	}
	if size := h.text("payload_request_size"); size != "" && size != "2" {
		i.note("payload_request_size: the limit of a resource is 2 MiB here and cannot be changed")
	}
	h.take("worker_count") // there is nothing to set
	if !older {
		i.rest(".http_server", h.members)
	}
}

func (i *importer) tls(h foreign) map[string]any {
	profile := strings.ToLower(h.text("tls_profile"))
	low, high := version(h.text("tls_min_version")), version(h.text("tls_max_version"))
	ciphers, groups := h.texts("tls_ciphers"), h.texts("tls_groups")
	for n, c := range ciphers {
		if !strings.Contains(c, "_") { // Trustee takes lists with colons too
			ciphers = slices.Replace(ciphers, n, n+1, strings.Split(c, ":")...)
			break
		}
	}
	out := map[string]any{}
	if low+high != "" || len(ciphers)+len(groups) > 0 {
		profile = tlsCustom
	}
	set(out, "profile", profile)
	set(out, "min_version", low)
	set(out, "max_version", high)
	setList(out, "ciphers", ciphers)
	setList(out, "groups", groups)
	if len(ciphers) > 0 {
		i.note("http_server.tls_ciphers: names are those of IANA here (TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256): config check says which it does not know")
	}
	if profile == "" {
		out["profile"] = tlsIntermediate
	}
	return out
}

// version brings TLSv1.2, tls1_2 and the like into our form.
func version(s string) string {
	s = strings.ReplaceAll(strings.TrimLeft(strings.ToLower(s), "tlsv "), "_", ".")
	return s
}

// tokens carries attestation_token.
func (i *importer) tokens() {
	t := i.from.either("attestation_token", "attestation_token_config")
	out := map[string]any{}
	setList(out, "trusted_certificates", t.texts("trusted_certs_paths"))
	setList(out, "trusted_key_sets", unfile(t.texts("trusted_jwk_sets")))
	setList(out, "tee_key_pointers", t.texts("extra_teekey_paths"))
	if insecure, was := t.yes("insecure_header_jwk"), t.yes("insecure_key"); insecure || was {
		out["insecure_header_key"] = true
		i.note("attestation_token.insecure_header_jwk: every token is believed, whoever made it. Our own tokens need no such switch: leave it out unless others attest your guests, and then name their keys")
	}
	t.take("attestation_token_type") // there is one
	if len(out) > 0 {
		i.kbs["attestation_token"] = out
	}
	i.rest(".attestation_token", t.members)
}

// attestationService carries what becomes of the service that is built in.
func (i *importer) attestationService() {
	a := i.from.either("attestation_service", "as_config")
	switch kind := a.text("type"); kind {
	case "", "coco_as_builtin", "CoCoASBuiltIn":
	default:
		i.note("attestation_service.type %s: evidence is verified in this server; a remote service counts by its tokens (passport mode: kbs.attestation_token)", kind)
	}
	if minutes := a.text("timeout") + i.from.text("timeout"); minutes != "" && minutes != "5" {
		i.note("attestation_service.timeout: a handshake lives 5 minutes here")
	}
	broker := a.table("attestation_token_broker")
	if kind, ok := a.members["attestation_token_broker"].(string); ok { // older files name it, and have its members beside it
		delete(a.members, "attestation_token_broker")
		broker.members["type"] = kind
	}
	for name, v := range a.table("attestation_token_config").members {
		if _, there := broker.members[name]; !there {
			broker.members[name] = v
		}
	}
	i.results(broker)
	if rvps := a.table("rvps_config"); len(rvps.members) > 0 {
		i.note("attestation_service.rvps_config: register your reference values here: sallyport reference")
	}
	if v := a.table("verifier_config"); len(v.members) > 0 {
		i.note("attestation_service.verifier_config: reference material is imported or fetched: sallyport reference import, or verifiers.fetch (docs/reference.md)")
	}
	for _, name := range []string{"work_dir", "as_addr", "pool_size", "policy_engine"} {
		if a.take(name) != nil {
			i.note("attestation_service.%s: has no counterpart", name)
		}
	}
	i.rest(".attestation_service", a.members)
}

// results carries what attestation tokens say of themselves.
func (i *importer) results(broker foreign) {
	const at = "attestation_service.attestation_token_broker"
	out := map[string]any{}
	set(out, "issuer", broker.text("issuer_name"))
	set(out, "developer", broker.text("developer_name"))
	set(out, "build", broker.text("build_name"))
	set(out, "profile", broker.text("profile_name"))
	if minutes := broker.text("duration_min"); minutes != "" {
		if d, ok := period(minutes + "m"); ok && d <= longestToken {
			out["life"] = minutes + "m"
		} else {
			i.note("%s.duration_min: tokens live one minute to 24 hours here", at)
		}
	}
	if signer := broker.table("signer"); len(signer.members) > 0 {
		out["certificate"] = true
		i.note("%s.signer: tokens are signed with a key that sallyport init makes, and carry a chain of the embedded authority (x5c): relying parties trust the root (contexts/NAME/ca.pem), or take the keys from /.well-known/jwks.json", at)
	}
	broker.take("verbose_token") // they always are
	if kind := broker.text("type"); kind != "" && !strings.EqualFold(kind, "ear") {
		i.note("%s.type %s: tokens are EAR here", at, kind)
	}
	if dir := broker.text("policy_dir"); dir != "" {
		i.note("%s.policy_dir: put the policies that lie in %s by sallyport policy set default_cpu FILE --kind kbs-attestation", at, dir)
	}
	if len(out) > 0 {
		i.kbs["attestation_results"] = out
	}
	i.rest("."+at, broker.members)
}

func set(m map[string]any, name, value string) {
	if value != "" {
		m[name] = value
	}
}

func setList(m map[string]any, name string, values []string) {
	if len(values) == 0 {
		return
	}
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v
	}
	m[name] = list
}

// unfile makes paths of file URLs.
func unfile(list []string) []string {
	for i, s := range list {
		if p, ok := strings.CutPrefix(s, "file://"); ok {
			list[i] = path.Clean(p)
		}
	}
	return list
}
