package plugin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"path"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// UploadToken lets its bearer bring packages of one publisher into the server's
// own repository, and do nothing else: a row of table upload_tokens. It takes the
// place of an identity, never of a signature: a package that no trusted publisher
// has signed is refused whoever brings it.
//
// The secret is not stored; its digest is.
type UploadToken struct {
	ID        string // names the token; no secret
	Version   int64
	Digest    string   // SHA-256 of the secret, lower-case hex
	Publisher string   // whose packages it may bring
	Names     []string // patterns of their names, as path.Match
	Audience  string   // the repository that it is for: SHA-256 of its first root, lower-case hex
	Expires   time.Time
	Revoked   time.Time // zero while good
	Reason    string    // why it was revoked
	Author    string    // subject id of the operator who made it, as whom it acts
	Created   time.Time
}

// The bounds of a token's life.
const (
	leastUpload = time.Minute
	mostUpload  = 366 * 24 * time.Hour
)

// NewUploadToken makes the row for a secret. What is not well-formed is Invalid.
func NewUploadToken(s secret.Bytes, publisher string, names []string, audience, author string, expires, now time.Time) (UploadToken, error) {
	if !manifest.ValidName(publisher) {
		return UploadToken{}, fault.Invalidf("the publisher must be lower-case letters, digits and inner hyphens, at most 64")
	}
	if len(names) == 0 {
		return UploadToken{}, fault.Invalidf("say which packages the token may bring: their names, or patterns such as acme-*")
	}
	if err := validPatterns(names); err != nil {
		return UploadToken{}, err
	}
	if life := expires.Sub(now); life < leastUpload || life > mostUpload {
		return UploadToken{}, fault.Invalidf("an upload token lives from one minute to a year")
	}
	return UploadToken{
		ID: id.New(), Version: 1, Digest: uploadDigest(s), Publisher: publisher, Names: append([]string(nil), names...), Audience: audience,
		Expires: expires.UTC().Truncate(time.Second), Author: author, Created: now.UTC().Truncate(time.Microsecond),
	}, nil
}

func uploadDigest(s secret.Bytes) string {
	sum := s.SHA256()
	return hex.EncodeToString(sum[:])
}

// Admits reports whether a secret is the token's, in constant time, and the token
// is good at time t in the repository named.
func (u UploadToken) Admits(s secret.Bytes, audience string, t time.Time) bool {
	same := subtle.ConstantTimeCompare([]byte(uploadDigest(s)), []byte(u.Digest)) == 1
	return same && u.Good(t) && len(u.Audience) == hex.EncodedLen(sha256.Size) && u.Audience == audience
}

// Good reports whether the token counts at time t.
func (u UploadToken) Good(t time.Time) bool { return u.Revoked.IsZero() && t.Before(u.Expires) }

// Covers demands that a package is one that the token may bring. The fault is
// Denied.
func (u UploadToken) Covers(e Entry) error {
	m := e.Manifest
	if m.Publisher != u.Publisher {
		return fault.Deniedf("this upload token is for packages of publisher %s, and the package is of %s", u.Publisher, m.Publisher)
	}
	for _, n := range u.Names {
		if ok, err := path.Match(n, m.Name); err == nil && ok {
			return nil
		}
	}
	return fault.Deniedf("this upload token does not cover the name %s; ask the operator of the repository for one that does", m.Name)
}

// Revoke is the row in its next version, good for nothing any more. One that was
// revoked already is a Conflict.
func (u UploadToken) Revoke(reason string, now time.Time) (UploadToken, error) {
	switch {
	case !u.Revoked.IsZero():
		return UploadToken{}, fault.Conflictf("the upload token was revoked already")
	case len(reason) > maxWhy:
		return UploadToken{}, fault.Invalidf("a reason has at most %d bytes", maxWhy)
	}
	u.Version, u.Revoked, u.Reason = u.Version+1, now.UTC().Truncate(time.Microsecond), reason
	return u, nil
}

// Table names the store's table.
func (UploadToken) Table() string { return "upload_tokens" }

// Columns gives the row in the order of the table's columns.
func (u UploadToken) Columns() []any {
	return []any{
		u.ID, u.Version, u.Digest, u.Publisher, jsonList(u.Names), u.Audience,
		unit.Micros(u.Expires), unit.Micros(u.Revoked), u.Reason, u.Author, unit.Micros(u.Created),
	}
}

// Scan fills the row from columns in the order of [UploadToken.Columns].
func (u *UploadToken) Scan(scan unit.Scanner) error {
	var names string
	var expires, revoked, created int64
	err := scan(&u.ID, &u.Version, &u.Digest, &u.Publisher, &names, &u.Audience, &expires, &revoked, &u.Reason, &u.Author, &created)
	if err != nil {
		return err
	}
	u.Names = nil
	if err := json.Unmarshal([]byte(names), &u.Names); err != nil {
		return fault.Internalf("upload token %s has broken name patterns", u.ID).Because(err)
	}
	u.Expires, u.Revoked, u.Created = unit.Moment(expires), unit.Moment(revoked), unit.Moment(created)
	return nil
}
