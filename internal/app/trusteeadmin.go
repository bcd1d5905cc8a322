package app

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// storage carries where data are.
func (i *importer) storage() {
	s := i.from.table("storage_backend")
	kind := s.text("storage_type")
	var folder string
	backends := s.table("backends")                                   // passwords and addresses do not belong into this file
	for _, name := range slices.Sorted(maps.Keys(backends.members)) { // it is taken from meanwhile
		if dir := backends.table(name).text("dir_path"); dir != "" {
			folder = path.Join(dir, "repository")
		}
	}
	if session := i.from.text("session_storage_type"); session != "" && session != "Memory" {
		i.note("session_storage_type: handshakes are kept by the guest, there is nothing to store")
	}
	older := i.from.either("repository_config", "resource_repository")
	where := older.text("dir_path")
	older.take("type")
	older.take("repository_type")
	switch strings.ToLower(kind) {
	case "postgres":
		i.out["storage"] = map[string]any{"driver": "postgres", "dsn_file": "dsn"}
		i.note("storage_backend: write the connection string of PostgreSQL into the file dsn, mode 0600; our tables are others than Trustee's, put resources and policies anew")
	case "", "memory", "localfs", "localjson":
		if where == "" {
			where = i.resources()
		}
		if where == "" {
			where = folder
		}
		if where == "" {
			where = "/opt/confidential-containers/kbs/repository"
		}
		i.note("storage_backend: data are in SQLite, encrypted; put the resources that lie in %s by sallyport resource put (docs/kbs.md)", where)
	default:
		i.note("storage_backend.storage_type %s: use SQLite, or storage.driver postgres for several replicas; put resources anew (docs/kbs.md)", kind)
	}
	if engine := i.from.table("policy_engine"); len(engine.members) > 0 {
		i.note("policy_engine: sallyport policy set resource-policy %s --kind kbs-resource", engine.text("policy_path"))
	} else {
		i.note("policy_engine: the resource policy that init installs wants an appraisal that contradicts nothing: set reference values, or a policy of your own (docs/kbs.md)")
	}
	for _, name := range []string{"as_config_file_path", "as_addr", "grpc_config", "intel_trust_authority_config"} {
		if i.from.take(name) != nil {
			i.note("%s: has no counterpart; evidence is verified in this server", name)
		}
	}
	i.rest(".storage_backend", s.members)
	i.rest(".repository_config", older.members)
}

// resources is the folder that the plugin for resources names, in files between
// the older and the present ones.
func (i *importer) resources() string {
	list, _ := i.from.members["plugins"].([]any)
	for _, one := range list {
		p, _ := one.(map[string]any)
		if name, _ := p["name"].(string); strings.EqualFold(name, "resource") {
			dir, _ := p["dir_path"].(string)
			return dir
		}
	}
	return ""
}

// admin carries who administers, under the present and the older keys. What was
// open because nobody said otherwise is not carried.
func (i *importer) admin(operator string) {
	there := i.from.members["admin"] != nil
	a := i.from.table("admin")
	mode, older := a.text("authorization_mode"), a.text("type")
	open := i.from.yes("insecure_api")
	open = a.yes("insecure_api") || open
	keys := i.personas(a)
	out := map[string]any{}
	// The younger key says what counts: an old switch that was left behind opens
	// nothing that is closed since.
	said := mode
	if said == "" {
		said = older
	}
	switch {
	case said == "DenyAll":
		out["mode"] = adminNobody
	case said == "InsecureAllowAll" || said == "" && open:
		out["mode"], out["as"] = adminAnybody, operator
		i.note("admin: everybody who reaches the door administers it, as operator %s. Better leave kbs.admin out: operators administer with their certificates", operator)
	case said == "AuthenticatedAuthorization":
		out["mode"], out["as"] = adminJWT, operator
		i.providers(a, out)
	case said == "Simple" && len(keys) == 0:
		i.note("admin: Simple names no public key: operators administer with their certificates")
	case said == "Simple" || said == "" && len(keys) > 0:
		out["mode"], out["as"] = adminJWT, operator
		var providers []any
		for _, key := range keys {
			providers = append(providers, map[string]any{"public_key": key})
		}
		out["identity_providers"] = providers
		out["access"] = []any{map[string]any{"role": "admin", "endpoints": []any{"^/kbs/.+$"}}}
		i.note("admin: tokens of the older kind have no role: make new ones, with the claims role = admin and exp")
	case said != "":
		i.note("admin.authorization_mode %s is not known: operators administer with their certificates", said)
	case !there:
		i.note("admin: without this section everybody administers Trustee. Here operators do, with their certificates (kbs.admin)")
	}
	if out["as"] != nil {
		i.note("kbs.admin.as: whoever administers by a token acts as operator %s, who must exist (sallyport agent list)", operator)
	}
	if len(out) > 0 {
		i.kbs["admin"] = out
	}
	i.rest(".admin", a.members)
}

// personas are the public keys of administrators of the older kind: one, or a list
// in which each has a name.
func (i *importer) personas(a foreign) []string {
	keys := []string{a.text("auth_public_key"), i.from.text("auth_public_key")}
	if keys[0] != "" {
		keys = keys[:1]
	}
	for _, p := range a.tables("personas") {
		p.take("id") // the token says who it is
		keys = append(keys, p.text("public_key_path"))
		i.rest(".admin.personas", p.members)
	}
	return unfile(slices.DeleteFunc(keys, func(key string) bool { return key == "" }))
}

// providers carries identity providers and access lists.
func (i *importer) providers(a foreign, out map[string]any) {
	authentication := a.table("authentication")
	jwt := authentication.table("bearer_jwt")
	var providers []any
	for _, p := range jwt.tables("identity_providers") {
		one := map[string]any{}
		set(one, "issuer", p.text("issuer"))
		set(one, "audience", p.text("audience"))
		set(one, "public_key", unfile([]string{p.text("public_key_uri")})[0])
		if one["public_key"] == nil {
			set(one, "key_set", unfile([]string{p.text("jwk_set_uri")})[0])
		} else if p.take("jwk_set_uri") != nil {
			i.note("admin.authentication.bearer_jwt.identity_providers: a provider has either a public key or a key set; its public_key_uri was taken")
		}
		providers = append(providers, one)
		i.rest(".admin.authentication.bearer_jwt.identity_providers", p.members)
	}
	out["identity_providers"] = providers
	authorization := a.table("authorization")
	acl := authorization.table("regex_acl")
	var access []any
	for _, r := range acl.tables("acls") {
		one := map[string]any{}
		set(one, "role", r.text("role"))
		endpoints := r.texts("allowed_endpoints")
		for _, e := range endpoints {
			if strings.Contains(e, `\?`) || strings.Contains(e, "[?]") {
				i.note("admin.authorization.regex_acl: %s names a query; endpoints are held against the path alone here", e)
			}
		}
		setList(one, "endpoints", endpoints)
		access = append(access, one)
		i.rest(".admin.authorization.regex_acl.acls", r.members)
	}
	out["access"] = access
	for _, rest := range []struct {
		at string
		in foreign
	}{{".admin.authentication.bearer_jwt", jwt}, {".admin.authentication", authentication}, {".admin.authorization.regex_acl", acl}, {".admin.authorization", authorization}} {
		i.rest(rest.at, rest.in.members)
	}
}

// plugins carries the entries of plugins.
func (i *importer) plugins() {
	for _, p := range i.from.tables("plugins") {
		name := strings.ToLower(p.text("name"))
		switch name {
		case "resource":
			for _, member := range []string{"storage_backend_type", "backend", "type"} {
				if kind := strings.ToLower(p.text(member)); kind != "" && kind != "kvstorage" && kind != "localfs" {
					i.note("plugins.resource: secrets that lie in %s are not fetched from there; put them by sallyport resource put", kind)
				}
			}
			p.take("dir_path")
		case "external":
			i.backends(p)
		case "sample":
		default:
			i.note("plugins.%s: is not built in; run it as an external plugin", name)
			continue
		}
		i.rest(".plugins."+name, p.members)
	}
}

// backends carries the external plugins.
func (i *importer) backends(p foreign) {
	var out []any
	for _, b := range p.tables("backends") {
		one := map[string]any{}
		set(one, "name", b.text("name"))
		set(one, "endpoint", b.text("endpoint"))
		set(one, "ca_cert_path", b.text("ca_cert_path"))
		if ms := b.take("timeout_ms"); ms != nil {
			one["timeout_ms"] = ms
		}
		b.take("tls_mode") // the endpoint's scheme decides
		i.rest(".plugins.external.backends", b.members)
		out = append(out, one)
	}
	if len(out) > 0 {
		i.kbs["external"] = map[string]any{"backends": out}
		i.note("kbs.external: routes with floors, and encrypt: always, bind a plugin's word; without them it alone decides who may call it (docs/plugins/kbs.md)")
	}
}
