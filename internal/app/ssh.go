package app

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/keys/sshca"
	"github.com/sallyport-project/sallyport/internal/secret"
)

// sshKind is the credential kind of OpenSSH user certificates.
const sshKind = "ssh-user-cert"

// sshSigner lets release finish OpenSSH user certificates: it translates a
// granted scope into what the SSH CA checks and signs.
type sshSigner struct{ keys func() *keyring }

var _ grant.Signer = sshSigner{}

// publicKey is the parameter by which a subject brings its own key. The
// provider learns it as host.public_key, in canonical form.
const publicKey = "public_key"

// Forward takes the subject's key out of the request.
func (s sshSigner) Forward(requested grant.Scope) grant.Scope {
	params := make(map[string]any, len(requested.Params))
	for name, value := range requested.Params {
		if name != publicKey {
			params[name] = value
		}
	}
	requested.Params = params
	return requested
}

// Prepare sets serial, key id, validity and key; a request without a public
// key gets a fresh pair.
func (s sshSigner) Prepare(requested grant.Scope, holder grant.Holder) (grant.Prepared, error) {
	out := grant.Prepared{Scope: s.Forward(requested)}
	public, err := text(requested.Params, publicKey)
	if err != nil {
		return out, err
	}
	if public == "" {
		if public, out.Private, err = sshca.FreshPair(holder.Name); err != nil {
			return out, err
		}
	} else if public, err = sshca.ParsePublicKey(public); err != nil {
		return out, err
	}
	serial, err := sshca.NewSerial(nil)
	if err != nil {
		return out, err
	}
	start := holder.Now.Truncate(time.Second)
	ring := s.keys()
	params := ring.ssh[ring.sshKey].Params(sshca.Decision{
		PublicKey: public, Serial: serial, KeyID: holder.Grant + " " + holder.Name,
		ValidAfter: start.Add(-sshca.Backdate), ValidBefore: start.Add(requested.TTL),
	})
	for name, value := range params {
		out.Scope.Params[name] = value
	}
	out.Handle = ring.sshKey + "/" + strconv.FormatUint(serial, 10)
	return out, nil
}

// Finish signs what the plugin composed, if it says exactly what was decided.
func (s sshSigner) Finish(p grant.Prepared, decided grant.Scope, proposed secret.Bytes) (grant.Signed, error) {
	host := p.Scope.Params
	serial, err := strconv.ParseUint(hostText(host, "host.serial"), 10, 64)
	if err != nil {
		return grant.Signed{}, fault.Wrap(err, "read prepared serial")
	}
	after, err1 := strconv.ParseInt(hostText(host, "host.valid_after"), 10, 64)
	before, err2 := strconv.ParseInt(hostText(host, "host.valid_before"), 10, 64)
	if err1 != nil || err2 != nil {
		return grant.Signed{}, fault.Internalf("prepared validity is broken")
	}
	d := sshca.Decision{
		PublicKey: hostText(host, "host.public_key"), Serial: serial, KeyID: hostText(host, "host.key_id"),
		ValidAfter: time.Unix(after, 0), ValidBefore: time.Unix(before, 0),
	}
	if d.Principals, err = texts(decided.Params, "principals"); err != nil {
		return grant.Signed{}, err
	}
	if d.SourceAddresses, err = texts(decided.Params, "source_addresses"); err != nil {
		return grant.Signed{}, err
	}
	if d.Extensions, err = texts(decided.Params, "extensions"); err != nil {
		return grant.Signed{}, err
	}
	if d.ForceCommand, err = text(decided.Params, "force_command"); err != nil {
		return grant.Signed{}, err
	}
	if len(d.SourceAddresses) == 0 {
		d.SourceAddresses = nil // not asked for: the source stays open
	}
	// The key is the one that was told to the plugin, though it may have been
	// replaced since: the serial is revoked by its list.
	key, _, _ := strings.Cut(p.Handle, "/")
	issuer := s.keys().ssh[key]
	if issuer == nil {
		return grant.Signed{}, fault.Unavailablef("the SSH CA was retired while this certificate was made: ask for it again")
	}
	line, err := issuer.Sign(proposed.Reveal(), d)
	if err != nil {
		return grant.Signed{}, err
	}
	return grant.Signed{Value: secret.FromString(line + "\n"), ExpiresAt: d.ValidBefore}, nil
}

func hostText(params map[string]any, name string) string {
	value, _ := params[name].(string)
	return value
}

// text reads an optional string parameter.
func text(params map[string]any, name string) (string, error) {
	switch value := params[name].(type) {
	case nil:
		return "", nil
	case string:
		return value, nil
	}
	return "", fault.Invalidf("parameter %s must be a text", name)
}

// texts reads an optional list of strings.
func texts(params map[string]any, name string) ([]string, error) {
	switch value := params[name].(type) {
	case nil:
		return nil, nil
	case []any:
		out := make([]string, 0, len(value))
		for _, item := range value {
			s, ok := item.(string)
			if !ok {
				return nil, fault.Invalidf("parameter %s must be a list of texts", name)
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, fault.Invalidf("parameter %s must be a list of texts", name)
}

// revokedList is the part of the store that lists what was taken back.
type revokedList interface {
	RevokedHandles(ctx context.Context, kind string, now time.Time) ([]grant.Grant, error)
}

// sshRevocations writes the key revocation list that sshd reads.
type sshRevocations struct {
	store revokedList
	lines map[string]string // authorized_keys line of each CA key, by row id
	now   func() time.Time
}

// keepRevoked is how long a serial stays on the list after its certificate has
// expired, for servers whose clock is behind.
const keepRevoked = time.Hour

// List is the binary list (PROTOCOL.krl) as of now. Its version is the time in
// seconds, so that it never goes back while the clock does not.
func (r sshRevocations) List(ctx context.Context) ([]byte, error) {
	now := r.now()
	revoked, err := r.store.RevokedHandles(ctx, sshKind, now.Add(-keepRevoked))
	if err != nil {
		return nil, fault.Wrap(err, "read revoked certificates")
	}
	serials := map[string][]uint64{}
	for _, g := range revoked {
		key, number, found := strings.Cut(g.Handle, "/")
		serial, err := strconv.ParseUint(number, 10, 64)
		if !found || err != nil || r.lines[key] == "" {
			return nil, fault.Internalf("grant %s has the handle %q, which is of no SSH CA here", g.ID, g.Handle)
		}
		serials[key] = append(serials[key], serial)
	}
	list := sshca.KRL{Version: uint64(max(now.Unix(), 1)), Generated: now, Comment: "Sallyport"}
	for key, line := range r.lines {
		list.Revoked = append(list.Revoked, sshca.Revoked{CA: line, Serials: serials[key]})
	}
	return list.Marshal()
}
