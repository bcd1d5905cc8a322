package sshca

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/subtle"
	"math"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport-project/sallyport/internal/fault"
)

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
	holder, err := d.validate()
	if err != nil {
		return "", err
	}
	c, err := parse(tbs)
	if err != nil {
		return "", err
	}
	if err := i.check(c, holder, d); err != nil {
		return "", err
	}
	signature, err := i.signer.Sign(i.rand, tbs, crypto.Hash(0))
	if err != nil {
		return "", fault.Wrap(err, "sign an SSH certificate")
	}
	// Another look at what leaves: a faulty device must not hand out a
	// signature that reveals something about the key.
	if !i.inside && !ed25519.Verify(i.key, tbs, signature) {
		return "", fault.Internalf("the SSH CA made a signature that does not verify")
	}
	return textLine(c.form.certificate, signed(tbs, signature)), nil
}

// signed adds a signature to the bytes that it is of: a string that holds the
// algorithm and the signature, each as a string.
func signed(tbs, signature []byte) []byte {
	blob := appendString(make([]byte, 0, 8+len(ssh.KeyAlgoED25519)+len(signature)), ssh.KeyAlgoED25519)
	blob = appendString(blob, signature)
	return appendString(append(make([]byte, 0, len(tbs)+4+len(blob)), tbs...), blob)
}

// refuse names the field that deviates.
func refuse(field, format string, args ...any) error {
	return fault.Deniedf("the certificate's %s is not as granted: "+format, append([]any{field}, args...)...)
}

// check compares every field with the decision.
func (i *Issuer) check(c certificate, holder publicKey, d Decision) error {
	switch {
	case c.kind != ssh.UserCert:
		return refuse("type", "it is %d, only user certificates (1) are signed", c.kind)
	case subtle.ConstantTimeCompare(c.authority, i.wire) != 1:
		return refuse("signature key", "it is not this CA's key, host.ca_public_key")
	case c.form.key != holder.algorithm || !bytes.Equal(c.key, holder.parts()):
		return refuse("public key", "it is not the holder's key, host.public_key")
	case c.serial != d.Serial:
		return refuse("serial", "it must be host.serial")
	case c.keyID != d.KeyID:
		return refuse("key id", "it must be host.key_id")
	case len(c.nonce) < minNonce || len(c.nonce) > maxNonce:
		return refuse("nonce", "it has %d bytes, use 32 random ones", len(c.nonce))
	case bytes.Count(c.nonce, c.nonce[:1]) == len(c.nonce):
		return refuse("nonce", "its bytes are all the same, use 32 random ones")
	case len(c.reserved) > 0:
		return refuse("reserved field", "it must be empty")
	}
	if err := checkWindow(c, d); err != nil {
		return err
	}
	if err := checkPrincipals(c.principals, d); err != nil {
		return err
	}
	if err := checkCritical(c.critical, d); err != nil {
		return err
	}
	return checkExtensions(c.extensions, d)
}

func checkWindow(c certificate, d Decision) error {
	after, before := d.ValidAfter.Unix(), d.ValidBefore.Unix()
	switch {
	case c.before > math.MaxInt64 || c.after > math.MaxInt64:
		return refuse("validity", "it has no end")
	case int64(c.after) < after:
		return refuse("validity", "it begins at %d, before host.valid_after %d", c.after, after)
	case int64(c.before) > before:
		return refuse("validity", "it ends at %d, after host.valid_before %d", c.before, before)
	case c.after >= c.before:
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
func checkCritical(options []option, d Decision) error {
	var command, sources *option
	for n, o := range options {
		switch o.name {
		case "force-command":
			command = &options[n]
		case "source-address":
			sources = &options[n]
		default:
			return refuse("critical options", "%.64q is not known here", o.name)
		}
	}
	if command == nil && d.ForceCommand != "" || command != nil && (command.value != d.ForceCommand || command.value == "") {
		return refuse("force-command", "it must be exactly the granted one")
	}
	if sources == nil {
		if d.SourceAddresses != nil {
			return refuse("source-address", "it is missing")
		}
		return nil
	}
	list := strings.Split(sources.value, ",")
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

func checkExtensions(extensions []option, d Decision) error {
	for _, e := range extensions {
		if !slices.Contains(d.Extensions, e.name) {
			return refuse("extensions", "%.64q was not granted", e.name)
		}
		if e.value != "" {
			return refuse("extensions", "%.64q must have no value", e.name)
		}
	}
	return nil
}
