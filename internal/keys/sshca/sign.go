package sshca

import (
	"bytes"
	"crypto/subtle"
	"math"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// MaxToBeSigned is the largest certificate that is looked at, in bytes.
const MaxToBeSigned = 64 << 10

// minNonce and maxNonce bound the nonce, by which the composer keeps the signed
// bytes from being chosen freely by the holder; OpenSSH uses 32.
const (
	minNonce = 16
	maxNonce = 64
)

// Sign checks the bytes to be signed, a certificate up to and including the
// signature key, against the decision and signs exactly them. The result is the
// certificate as an authorized_keys line without a line break.
//
// Bytes that are not one canonical certificate are Invalid; a certificate that
// differs from the decision is Denied. Both name the field, for the record and
// the plugin's author.
func (i *Issuer) Sign(tbs []byte, d Decision) (string, error) {
	if err := d.Validate(); err != nil {
		return "", err
	}
	c, err := parse(tbs)
	if err != nil {
		return "", err
	}
	if err := i.check(c, d); err != nil {
		return "", err
	}
	if c.Signature, err = i.signer.Sign(i.rand, tbs); err != nil {
		return "", fault.Wrap(err, "sign an SSH certificate")
	}
	// Another look at what leaves: a faulty device must not hand out a
	// signature that reveals something about the key.
	if !i.inside {
		if err := c.SignatureKey.Verify(tbs, c.Signature); err != nil {
			return "", fault.Internalf("the SSH CA made a signature that does not verify").Because(err)
		}
	}
	return line(c), nil
}

// parse reads one certificate without its signature. What is read must encode
// to the same bytes again, so nothing in them was skipped or read loosely.
func parse(tbs []byte) (*ssh.Certificate, error) {
	if len(tbs) == 0 || len(tbs) > MaxToBeSigned {
		return nil, fault.Invalidf("the certificate to be signed has %d bytes, between 1 and %d are accepted", len(tbs), MaxToBeSigned)
	}
	// The library reads whole certificates only: lend it an empty signature,
	// two strings of no length.
	whole := append(append(make([]byte, 0, len(tbs)+12), tbs...), 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0)
	k, err := ssh.ParsePublicKey(whole)
	if err != nil {
		return nil, fault.Invalidf("the bytes to be signed are not an OpenSSH certificate up to its signature key").Because(err)
	}
	c, ok := k.(*ssh.Certificate)
	if !ok {
		return nil, fault.Invalidf("the bytes to be signed are a key, not a certificate")
	}
	if !bytes.Equal(unsigned(c), tbs) {
		return nil, fault.Invalidf("the certificate to be signed is not in canonical form")
	}
	return c, nil
}

// unsigned is the certificate's encoding up to the signature key.
func unsigned(c *ssh.Certificate) []byte {
	bare := *c
	bare.Signature = nil
	b := bare.Marshal()
	return b[:len(b)-4] // the empty signature's length
}

// refuse names the field that deviates.
func refuse(field, format string, args ...any) error {
	return fault.Deniedf("the certificate's %s is not as granted: "+format, append([]any{field}, args...)...)
}

// check compares every field with the decision.
func (i *Issuer) check(c *ssh.Certificate, d Decision) error {
	holder, err := parsePublic(d.PublicKey)
	if err != nil {
		return err
	}
	switch {
	case c.CertType != ssh.UserCert:
		return refuse("type", "it is %d, only user certificates (1) are signed", c.CertType)
	case subtle.ConstantTimeCompare(c.SignatureKey.Marshal(), i.signer.PublicKey().Marshal()) != 1:
		return refuse("signature key", "it is not this CA's key, host.ca_public_key")
	case !bytes.Equal(c.Key.Marshal(), holder.Marshal()):
		return refuse("public key", "it is not the holder's key, host.public_key")
	case c.Serial != d.Serial:
		return refuse("serial", "it must be host.serial")
	case c.KeyId != d.KeyID:
		return refuse("key id", "it must be host.key_id")
	case len(c.Nonce) < minNonce || len(c.Nonce) > maxNonce:
		return refuse("nonce", "it has %d bytes, use 32 random ones", len(c.Nonce))
	case bytes.Count(c.Nonce, c.Nonce[:1]) == len(c.Nonce):
		return refuse("nonce", "its bytes are all the same, use 32 random ones")
	case len(c.Reserved) > 0:
		return refuse("reserved field", "it must be empty")
	}
	if err := checkWindow(c, d); err != nil {
		return err
	}
	if err := checkPrincipals(c.ValidPrincipals, d); err != nil {
		return err
	}
	if err := checkCritical(c.CriticalOptions, d); err != nil {
		return err
	}
	return checkExtensions(c.Extensions, d)
}

func checkWindow(c *ssh.Certificate, d Decision) error {
	after, before := d.ValidAfter.Unix(), d.ValidBefore.Unix()
	switch {
	case c.ValidBefore > math.MaxInt64 || c.ValidAfter > math.MaxInt64:
		return refuse("validity", "it has no end")
	case int64(c.ValidAfter) < after:
		return refuse("validity", "it begins at %d, before host.valid_after %d", c.ValidAfter, after)
	case int64(c.ValidBefore) > before:
		return refuse("validity", "it ends at %d, after host.valid_before %d", c.ValidBefore, before)
	case c.ValidAfter >= c.ValidBefore:
		return refuse("validity", "it ends before it begins")
	}
	return nil
}

func checkPrincipals(principals []string, d Decision) error {
	if len(principals) == 0 {
		return refuse("principals", "the list is empty, which means everybody")
	}
	for n, p := range principals {
		if !slices.Contains(d.Principals, p) {
			return refuse("principals", "%.64q was not granted", p)
		}
		if slices.Contains(principals[:n], p) {
			return refuse("principals", "%.64q is named twice", p)
		}
	}
	return nil
}

// checkCritical wants every restriction of the decision and knows no others.
// Naming fewer source addresses than granted is narrower and so allowed, also
// where the decision leaves the source open.
func checkCritical(options map[string]string, d Decision) error {
	for name := range options {
		if name != "source-address" && name != "force-command" {
			return refuse("critical options", "%.64q is not known here", name)
		}
	}
	if command, ok := options["force-command"]; command != d.ForceCommand || ok != (d.ForceCommand != "") {
		return refuse("force-command", "it must be exactly the granted one")
	}
	sources, ok := options["source-address"]
	if !ok {
		if d.SourceAddresses != nil {
			return refuse("source-address", "it is missing")
		}
		return nil
	}
	list := strings.Split(sources, ",")
	if len(list) > maxSources {
		return refuse("source-address", "it names more than %d", maxSources)
	}
	inner, err := prefixes(list)
	if err != nil {
		return refuse("source-address", "%s", fault.Public(err))
	}
	if d.SourceAddresses == nil {
		return nil
	}
	outer, err := prefixes(d.SourceAddresses)
	if err != nil {
		return err
	}
	for _, p := range inner {
		if !covered(p, outer) {
			return refuse("source-address", "%s was not granted", p)
		}
	}
	return nil
}

func checkExtensions(extensions map[string]string, d Decision) error {
	for name, value := range extensions {
		if !slices.Contains(d.Extensions, name) {
			return refuse("extensions", "%.64q was not granted", name)
		}
		if value != "" {
			return refuse("extensions", "%.64q must have no value", name)
		}
	}
	return nil
}
