package sshca

import (
	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxToBeSigned is the largest certificate that is looked at, in bytes.
const MaxToBeSigned = 64 << 10

// certificate is what PROTOCOL.certkeys puts into one, up to and including the
// signature key. Byte slices are parts of what was parsed.
type certificate struct {
	form                 form
	key                  []byte // the holder's key in wire form, without its algorithm
	nonce                []byte
	serial               uint64
	kind                 uint32
	keyID                string
	principals           []string
	after, before        uint64
	critical, extensions []option
	reserved             []byte
	authority            []byte // the signature key in wire form
}

// option is a critical option or an extension.
type option struct{ name, value string }

// form says how certificates of one algorithm are built.
type form struct {
	certificate, key string // the algorithms of the certificate and of the holder's key
	parts            int    // of that key after its algorithm; each is a string
}

// forms are the certificates that are known, by their algorithm.
var forms = map[string]form{
	ssh.CertAlgoED25519v01:    {ssh.CertAlgoED25519v01, ssh.KeyAlgoED25519, 1},       // point
	ssh.CertAlgoSKED25519v01:  {ssh.CertAlgoSKED25519v01, ssh.KeyAlgoSKED25519, 2},   // point, application
	ssh.CertAlgoECDSA256v01:   {ssh.CertAlgoECDSA256v01, ssh.KeyAlgoECDSA256, 2},     // curve, point
	ssh.CertAlgoECDSA384v01:   {ssh.CertAlgoECDSA384v01, ssh.KeyAlgoECDSA384, 2},     // curve, point
	ssh.CertAlgoECDSA521v01:   {ssh.CertAlgoECDSA521v01, ssh.KeyAlgoECDSA521, 2},     // curve, point
	ssh.CertAlgoSKECDSA256v01: {ssh.CertAlgoSKECDSA256v01, ssh.KeyAlgoSKECDSA256, 3}, // curve, point, application
	ssh.CertAlgoRSAv01:        {ssh.CertAlgoRSAv01, ssh.KeyAlgoRSA, 2},               // exponent, modulus
}

// parse reads one certificate without its signature. Every byte belongs to
// exactly one field, and no other bytes mean the same. Whether the holder's and
// the authority's keys are keys is not looked at: both must be equal to known
// ones.
func parse(tbs []byte) (certificate, error) {
	if len(tbs) == 0 || len(tbs) > MaxToBeSigned {
		return certificate{}, fault.Invalidf("the certificate to be signed has %d bytes, between 1 and %d are accepted", len(tbs), MaxToBeSigned)
	}
	in := reader{b: tbs}
	f, known := forms[string(in.string())]
	if !known {
		return certificate{}, fault.Invalidf("the bytes to be signed are not an OpenSSH certificate of a known algorithm")
	}
	c := certificate{form: f, nonce: in.string()}
	key := in.b
	for range f.parts {
		in.string()
	}
	c.key = key[:len(key)-len(in.b)]
	c.serial, c.kind, c.keyID = in.uint64(), in.uint32(), string(in.string())
	principals := reader{b: in.string()}
	for principals.more() {
		c.principals = append(c.principals, string(principals.string()))
	}
	c.after, c.before = in.uint64(), in.uint64()
	critical, extensions := in.string(), in.string()
	c.reserved, c.authority = in.string(), in.string()
	if !in.whole() || !principals.whole() {
		return certificate{}, fault.Invalidf("the bytes to be signed are not an OpenSSH certificate up to its signature key")
	}
	var err error
	if c.critical, err = parseOptions(critical); err != nil {
		return certificate{}, err
	}
	c.extensions, err = parseOptions(extensions)
	return c, err
}

// parseOptions reads pairs of name and data: names ascend, and data is empty or
// holds one string that is not.
func parseOptions(list []byte) ([]option, error) {
	in := reader{b: list}
	var out []option
	for in.more() {
		o := option{name: string(in.string())}
		if data := (reader{b: in.string()}); data.more() {
			o.value = string(data.string())
			if !data.whole() || o.value == "" {
				return nil, errForm()
			}
		}
		if n := len(out); in.bad || n > 0 && out[n-1].name >= o.name {
			return nil, errForm()
		}
		out = append(out, o)
	}
	return out, nil
}

func errForm() error {
	return fault.Invalidf("the options of the certificate to be signed are not in canonical form: each name once, in ascending order, with no data or one text")
}
