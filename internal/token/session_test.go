package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func TestSessions_OpenAndVerify(t *testing.T) {
	d := newDesk(t)
	got := d.open(t)
	x, err := d.Verify(raw(got), Presentation{Certificate: d.cert})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got.Session, x, cmpopts.IgnoreUnexported(Session{})); diff != "" {
		t.Error(diff)
	}
	if x.Expires.Sub(x.IssuedAt) != MaxLife || x.Signer != "k1" || x.Delegated() || x.Subject != "01HZXAMPLE" {
		t.Errorf("%+v", x)
	}
	if !x.Allows("vend", "ssh-user-cert") || x.Allows("vend", "github-pat") || !x.Allows("read", "resource/team-a/db/key") || x.Allows("read", "resource/team-b/db") {
		t.Error("scopes are not those asked for")
	}
	if len(raw(got)) > 1024 {
		t.Errorf("%d bytes", len(raw(got)))
	}
}

// A general library reads ours and makes tokens that we read.
func TestSessions_AgreeWithLibrary(t *testing.T) {
	d := newDesk(t)
	key := ed25519.NewKeyFromSeed(seed(1).Reveal())
	tok, err := jwt.ParseSigned(raw(d.open(t)), []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var std jwt.Claims
	var all map[string]any
	if err := tok.Claims(key.Public(), &std, &all); err != nil {
		t.Fatal(err)
	}
	if err := std.ValidateWithLeeway(jwt.Expected{Issuer: "https://sallyport.test", Subject: "01HZXAMPLE", Time: start}, 0); err != nil {
		t.Error(err)
	}
	if std.NotBefore.Time().Sub(start) != -time.Minute {
		t.Error("nbf is not back-dated by 60 s")
	}
	theirs := forge(t, jose.EdDSA, key, map[jose.HeaderKey]any{"typ": sessionType, "kid": "k1"}, all)
	if _, err := d.Verify(theirs, Presentation{Certificate: d.cert}); err != nil {
		t.Error(err)
	}
}

func TestSessions_EndWithTime(t *testing.T) {
	d := newDesk(t)
	tok := raw(d.open(t))
	for _, c := range []struct {
		at time.Duration
		ok bool
	}{{-time.Hour, false}, {-61 * time.Second, false}, {-60 * time.Second, true}, {0, true}, {MaxLife - time.Second, true}, {MaxLife, false}, {24 * time.Hour, false}} {
		d.at = start.Add(c.at)
		if _, err := d.Verify(tok, Presentation{Certificate: d.cert}); (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", c.at, err)
		}
	}
}

func TestSessions_EndWithTheCertificate(t *testing.T) {
	d := newDesk(t)
	d.cert = certificate(t, d.key, start.Add(-time.Hour), start.Add(3*time.Minute))
	if got := d.open(t).Session; got.Expires.After(start.Add(3 * time.Minute)) {
		t.Errorf("the session outlives its certificate: %s", got.Expires)
	}
	for _, c := range [][2]time.Duration{{-2 * time.Hour, -time.Hour}, {time.Hour, 2 * time.Hour}, {-time.Hour, 0}} {
		cert := certificate(t, d.key, start.Add(c[0]), start.Add(c[1]))
		_, err := d.Open(Opening{Subject: "s", Certificate: cert, Scopes: scopesOf(t, "a:b")})
		if !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("certificate of %v: %v", c, err)
		}
	}
}

// AgentKMS's tokens could not validate because two services had two key sets;
// and a key id alone must not make another ring's token good.
func TestSessions_OneKeySetOnEveryReplica(t *testing.T) {
	d := newDesk(t)
	tok := raw(d.open(t))
	replica, err := NewSessions(SessionsConfig{"https://sallyport.test", ringOf(t, monthKey("k1", 1)), d.read})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replica.Verify(tok, Presentation{Certificate: d.cert}); err != nil {
		t.Errorf("a replica with the same ring: %v", err)
	}
	for name, cfg := range map[string]SessionsConfig{
		"same id, other key": {"https://sallyport.test", ringOf(t, monthKey("k1", 2)), d.read},
		"other id, same key": {"https://sallyport.test", ringOf(t, monthKey("k2", 1)), d.read},
		"other issuer":       {"https://other.test", ringOf(t, monthKey("k1", 1)), d.read},
	} {
		s, err := NewSessions(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(tok, Presentation{Certificate: d.cert}); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRing_Rotates(t *testing.T) {
	d := newDesk(t)
	old := raw(d.open(t))
	next := Key{ID: "k2", Seed: seed(2), NotBefore: start.Add(10 * time.Minute), RetireAt: start.Add(time.Hour)}
	public := monthKey("k1", 1)
	public.Public, _ = ed25519.NewKeyFromSeed(public.Seed.Reveal()).Public().(ed25519.PublicKey)
	if err := d.ring.Replace([]Key{monthKey("k1", 1), next}); err != nil {
		t.Fatal(err)
	}
	if got := d.open(t).Session.Signer; got != "k1" {
		t.Errorf("signed with %s before its time", got)
	}
	d.pass(10 * time.Minute)
	if got := d.open(t).Session.Signer; got != "k2" {
		t.Errorf("signed with %s after rotation", got)
	}
	if _, err := d.Verify(old, Presentation{Certificate: d.cert}); err != nil {
		t.Errorf("a token of the old key: %v", err)
	}
	d.pass(40 * time.Minute) // 10 minutes before k2 retires: k1 signs what lives longer
	if got := d.open(t).Session.Signer; got != "k1" {
		t.Errorf("signed with %s what outlives it", got)
	}
	public.Seed = Key{}.Seed
	if err := d.ring.Replace([]Key{public}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(Opening{Subject: "s", Certificate: d.cert, Scopes: scopesOf(t, "a:b")}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a ring without a private key: %v", err)
	}
	d.at = start
	if _, err := d.Verify(old, Presentation{Certificate: d.cert}); err != nil {
		t.Errorf("a key that only verifies: %v", err)
	}
	retired := public
	retired.RetireAt = start
	if err := d.ring.Replace([]Key{retired}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Verify(old, Presentation{Certificate: d.cert}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a retired key: %v", err)
	}
}

func TestNewRing_RefusesDefectiveKeys(t *testing.T) {
	good := monthKey("k1", 1)
	differ, short, bare, endless, name := good, good, good, good, good
	differ.Public = make(ed25519.PublicKey, 32)
	short.Seed = Key{}.Seed
	short.Public = ed25519.PublicKey{1}
	bare.Seed = Key{}.Seed
	endless.RetireAt = endless.NotBefore
	name.ID = "a/b"
	for label, keys := range map[string][]Key{
		"none": nil, "halves differ": {differ}, "short": {short}, "no key": {bare}, "no life": {endless}, "name": {name},
		"same id": {good, monthKey("k1", 2)}, "same key": {good, monthKey("k2", 1)},
	} {
		if _, err := NewRing(keys); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", label, err)
		}
	}
	r := ringOf(t, good)
	if err := r.Replace(nil); err == nil {
		t.Error("an empty ring")
	}
	if _, ok := r.public("k1", start); !ok {
		t.Error("a refused replacement took the old keys away")
	}
}

// Unbound tokens, tokens bound twice, missing and odd claims, all with a good
// signature: what a defect elsewhere could sign is still refused here.
func TestVerify_RefusesOddClaims(t *testing.T) {
	d := newDesk(t)
	key := ed25519.NewKeyFromSeed(seed(1).Reveal())
	c, err := split(raw(d.open(t)), MaxSession)
	if err != nil {
		t.Fatal(err)
	}
	head := map[jose.HeaderKey]any{"typ": sessionType, "kid": "k1"}
	sign := func(change func(map[string]any)) string {
		var m map[string]any
		if err := json.Unmarshal(c.payload, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		return forge(t, jose.EdDSA, key, head, m)
	}
	if _, err := d.Verify(sign(func(map[string]any) {}), Presentation{Certificate: d.cert}); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	cases := map[string]func(map[string]any){
		"unknown member":     func(m map[string]any) { m["admin"] = true },
		"unbound":            func(m map[string]any) { m["cnf"] = map[string]any{} },
		"bound twice":        func(m map[string]any) { m["cnf"].(map[string]any)["jkt"] = strings.Repeat("A", 43) },
		"unknown binding":    func(m map[string]any) { m["cnf"] = map[string]any{"kid": "x"} },
		"short thumbprint":   func(m map[string]any) { m["cnf"] = map[string]any{"x5t#S256": "AAAA"} },
		"parent, no key":     func(m map[string]any) { m["par"] = m["jti"] },
		"key, no parent":     func(m map[string]any) { m["cnf"] = map[string]any{"jkt": strings.Repeat("A", 43)} },
		"parent is no id":    func(m map[string]any) { m["par"] = "x"; m["cnf"] = map[string]any{"jkt": strings.Repeat("A", 43)} },
		"jti is no id":       func(m map[string]any) { m["jti"] = "1" },
		"empty subject":      func(m map[string]any) { m["sub"] = "" },
		"null subject":       func(m map[string]any) { m["sub"] = nil },
		"other issuer":       func(m map[string]any) { m["iss"] = "x" },
		"no scopes":          func(m map[string]any) { m["scp"] = []string{} },
		"malformed scope":    func(m map[string]any) { m["scp"] = []string{"everything"} },
		"too long a life":    func(m map[string]any) { m["exp"] = m["iat"].(float64) + 901 },
		"ends before begin":  func(m map[string]any) { m["exp"] = m["iat"].(float64) - 1 },
		"nbf not back-dated": func(m map[string]any) { m["nbf"] = m["iat"] },
		"nbf far back":       func(m map[string]any) { m["nbf"] = 1 },
		"iat in the future": func(m map[string]any) {
			for _, n := range []string{"iat", "nbf", "exp"} {
				m[n] = m[n].(float64) + 120
			}
		},
		"iat negative":   func(m map[string]any) { m["iat"], m["nbf"], m["exp"] = -100, -160, 700 },
		"exp as text":    func(m map[string]any) { m["exp"] = "1900000000" },
		"exp a fraction": func(m map[string]any) { m["exp"] = m["exp"].(float64) - 0.5 },
		"exp huge":       func(m map[string]any) { m["exp"] = 1e30 },
	}
	for _, name := range []string{"iss", "sub", "jti", "iat", "nbf", "exp", "cnf", "scp"} {
		cases["no "+name] = func(m map[string]any) { delete(m, name) }
	}
	for name, change := range cases {
		if _, err := d.Verify(sign(change), Presentation{Certificate: d.cert}); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerify_RefusesOtherAlgorithmsAndHeaders(t *testing.T) {
	d := newDesk(t)
	key := ed25519.NewKeyFromSeed(seed(1).Reveal())
	public, _ := key.Public().(ed25519.PublicKey)
	c, err := split(raw(d.open(t)), MaxSession)
	if err != nil {
		t.Fatal(err)
	}
	var claims any
	if err := json.Unmarshal(c.payload, &claims); err != nil {
		t.Fatal(err)
	}
	head := func(more ...any) map[jose.HeaderKey]any {
		m := map[jose.HeaderKey]any{"typ": sessionType, "kid": "k1"}
		for i := 0; i < len(more); i += 2 {
			m[jose.HeaderKey(more[i].(string))] = more[i+1]
		}
		return m
	}
	plain := func(header string) string { return encode([]byte(header)) + "." + encode(c.payload) + "." }
	other := p256(t)
	for name, tok := range map[string]string{
		"HMAC with the public key": forge(t, jose.HS256, []byte(public), head(), claims),
		"ES256":                    forge(t, jose.ES256, other, head(), claims),
		"none":                     plain(`{"alg":"none","kid":"k1","typ":"` + sessionType + `"}`),
		"none with a signature":    plain(`{"alg":"none","kid":"k1","typ":"`+sessionType+`"}`) + "AAAA",
		"no kid":                   forge(t, jose.EdDSA, key, map[jose.HeaderKey]any{"typ": sessionType}, claims),
		"unknown kid":              forge(t, jose.EdDSA, key, head("kid", "k9"), claims),
		"no typ":                   forge(t, jose.EdDSA, key, map[jose.HeaderKey]any{"kid": "k1"}, claims),
		"typ JWT":                  forge(t, jose.EdDSA, key, head("typ", "JWT"), claims),
		"typ in other case":        forge(t, jose.EdDSA, key, head("typ", strings.ToUpper(sessionType)), claims),
		"a proof's typ":            forge(t, jose.EdDSA, key, head("typ", proofType), claims),
		"crit":                     forge(t, jose.EdDSA, key, head("crit", []string{"b64"}), claims),
		"crit with b64":            forge(t, jose.EdDSA, key, head("crit", []string{"b64"}, "b64", true), claims),
		"embedded key":             forge(t, jose.EdDSA, key, head("jwk", jose.JSONWebKey{Key: public}), claims),
		"jku":                      forge(t, jose.EdDSA, key, head("jku", "https://evil.test"), claims),
		"payload no object":        forge(t, jose.EdDSA, key, head(), []int{1}),
		"too long":                 forge(t, jose.EdDSA, key, head(), strings.Repeat("x", MaxSession)),
		"empty":                    "",
		"dots":                     "..",
		"two parts":                "a.b",
		"four parts":               raw(d.open(t)) + ".a",
		"blank around":             " " + raw(d.open(t)),
		"line break":               raw(d.open(t)) + "\n",
		"JSON form":                `{"payload":"","signatures":[]}`,
	} {
		if _, err := d.Verify(tok, Presentation{Certificate: d.cert}); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Not one of thousands of mutants of a token is accepted.
func TestVerify_RefusesEveryMutant(t *testing.T) {
	d := newDesk(t)
	tok := raw(d.open(t))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=\n"
	mutants := 0
	try := func(m string) {
		if m == tok {
			return
		}
		mutants++
		if _, err := d.Verify(m, Presentation{Certificate: d.cert}); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("mutant %q: %v", m, err)
		}
	}
	for i := range tok {
		try(tok[:i] + tok[i+1:])            // one character gone
		try(tok[:i] + tok[i:i+1] + tok[i:]) // one doubled
		var b [2]byte
		_, _ = rand.Read(b[:])
		for _, r := range b {
			try(tok[:i] + string(alphabet[int(r)%len(alphabet)]) + tok[i+1:])
		}
	}
	last := len(tok) - 1 // every other last character: unused bits of the signature
	for _, r := range alphabet {
		try(tok[:last] + string(r))
	}
	other := raw(d.open(t))
	a, b := strings.Split(tok, "."), strings.Split(other, ".")
	try(a[0] + "." + b[1] + "." + a[2])
	try(a[0] + "." + a[1] + "." + b[2])
	if mutants < 1000 {
		t.Errorf("only %d mutants", mutants)
	}
	if _, err := d.Verify(tok, Presentation{Certificate: d.cert}); err != nil {
		t.Errorf("the token itself: %v", err)
	}
}

func TestVerify_RefusesAnotherCertificate(t *testing.T) {
	d := newDesk(t)
	tok := raw(d.open(t))
	renewed := certificate(t, d.key, start.Add(-time.Minute), start.Add(time.Hour)) // same key, another certificate
	for name, p := range map[string]Presentation{
		"none": {}, "a thief's": {Certificate: certificate(t, p256(t), start.Add(-time.Hour), start.Add(time.Hour))},
		"renewed": {Certificate: renewed}, "a proof instead": {Proof: "x", Method: "GET", URL: "https://h/"},
	} {
		if _, err := d.Verify(tok, p); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefresh_NeverWidens(t *testing.T) {
	d := newDesk(t)
	x, err := d.Verify(raw(d.open(t, "vend:ssh-user-cert")), Presentation{Certificate: d.cert})
	if err != nil {
		t.Fatal(err)
	}
	d.pass(10 * time.Minute)
	y, err := d.Refresh(x)
	if err != nil {
		t.Fatal(err)
	}
	if y.Session.ID == x.ID || y.Session.Subject != x.Subject || y.Session.Certificate != x.Certificate || cmp.Diff(x.Scopes, y.Session.Scopes) != "" {
		t.Errorf("%+v became %+v", x, y.Session)
	}
	if y.Session.Expires.Sub(d.at) != MaxLife {
		t.Error("a refresh gives a full life")
	}
	d.pass(5 * time.Minute)
	if _, err := d.Refresh(x); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an expired session was refreshed: %v", err)
	}
	made := x
	made.ours = false
	if _, err := d.Refresh(made); !fault.Is(err, fault.Internal) {
		t.Errorf("a session that was not verified: %v", err)
	}
	text, _ := json.Marshal(y.Session)
	var decoded Session
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Refresh(decoded); !fault.Is(err, fault.Internal) {
		t.Errorf("a decoded session: %v", err)
	}
}

func TestOpen_RefusesGaps(t *testing.T) {
	d := newDesk(t)
	good := Opening{Subject: "s", Certificate: d.cert, Scopes: scopesOf(t, "a:b")}
	for name, change := range map[string]func(*Opening){
		"no subject": func(o *Opening) { o.Subject = "" }, "no certificate": func(o *Opening) { o.Certificate = nil },
		"no scopes": func(o *Opening) { o.Scopes = nil }, "negative life": func(o *Opening) { o.Life = -1 },
	} {
		o := good
		change(&o)
		if _, err := d.Open(o); !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := good
	o.Life = 24 * time.Hour
	if got, err := d.Open(o); err != nil || got.Session.Expires.Sub(start) != MaxLife {
		t.Errorf("a day long: %v, %v", got.Session.Expires, err)
	}
	o.Scopes = nil
	for range maxScopes {
		o.Scopes = append(o.Scopes, Scope("read:"+strings.Repeat("x", 200)))
	}
	if _, err := d.Open(o); !fault.Is(err, fault.Invalid) {
		t.Errorf("too many scopes for a token: %v", err)
	}
	for _, cfg := range []SessionsConfig{{}, {Issuer: "x", Now: d.read}, {Issuer: "x", Ring: d.ring}, {Ring: d.ring, Now: d.read}} {
		if _, err := NewSessions(cfg); !fault.Is(err, fault.Internal) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestIssued_PrintsNoToken(t *testing.T) {
	d := newDesk(t)
	i := d.open(t)
	text, _ := json.Marshal(i)
	if strings.Contains(string(text), strings.Split(raw(i), ".")[2]) {
		t.Error("the token leaks into JSON")
	}
}

// knownSession was signed with the key of newDesk: the format must stay
// readable, and the fuzzer's workers must share one good token.
const knownSession = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsxIiwidHlwIjoic2FsbHlwb3J0LXNlc3Npb24rand0In0." +
	"eyJpc3MiOiJodHRwczovL3NhbGx5cG9ydC50ZXN0Iiwic3ViIjoiMDFIWlhBTVBMRSIsImp0aSI6IjAxTTgzSlZXR1dQUzg1WlQzTVY1SEdUNDYyIiwiaWF0IjoxNzkzNTM0NDAwLCJuYmYiOjE3OTM1MzQzNDAsImV4cCI6MTc5MzUzNTMwMCwiY25mIjp7Ing1dCNTMjU2IjoiT3VxajZIbHpLb1VYLXhHS2JhejMya0l1b2lSSXlmNmExMDQ3MGdJU0NubyJ9LCJzY3AiOlsicmVhZDpyZXNvdXJjZS90ZWFtLWEvKioiLCJ2ZW5kOnNzaC11c2VyLWNlcnQiXX0." +
	"xgvY46XushSRGgG5exXNY2448TLZqELboW71JtB8Ij8we9Czgo9Yyzt5fxydZUMNOOqharXNEi02T5RBd229BQ"

func TestSessions_ReadTheKnownFormat(t *testing.T) {
	d := newDesk(t)
	x, err := d.parse(knownSession)
	if err != nil || x.Subject != "01HZXAMPLE" || len(x.Scopes) != 2 {
		t.Errorf("%+v, %v", x, err)
	}
}

func FuzzParseSession(f *testing.F) {
	d := newDesk(f)
	f.Add(knownSession)
	f.Add("..")
	f.Add(strings.Replace(knownSession, ".", "..", 1))
	f.Fuzz(func(t *testing.T, s string) {
		_, err := d.parse(s)
		if (err == nil) != (s == knownSession) || err != nil && !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("parse: %v", err)
		}
		if _, err := d.Verify(s, Presentation{Certificate: d.cert}); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("verify with another certificate: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	d := newDesk(b)
	tok := raw(d.open(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Verify(tok, Presentation{Certificate: d.cert}); err != nil {
			b.Fatal(err)
		}
	}
}
