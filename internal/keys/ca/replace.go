package ca

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/keys"
)

// Replace makes a new root with an intermediate under it. The old root signs the
// new one, so who trusts the old one alone accepts what the new one has issued.
// The new root never signs the old one: nobody could take that back, and whoever
// has a leaked key of a retired root would be believed by all who trust only the
// new one. Both are trusted until the old one is retired, which is an operator's
// decision; until then another replacement is a Conflict.
func Replace(ctx context.Context, v *keys.Vault, rows []keys.Key, cfg Config) (keys.Rotation, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return keys.Rotation{}, err
	}
	roots, err := keys.NewRing(keys.CARoot, rows)
	if err != nil {
		return keys.Rotation{}, err
	}
	if usable := roots.Verifying(cfg.Now()); len(usable) > 1 {
		return keys.Rotation{}, fault.Conflictf("root %s, which was replaced before, is still trusted: retire it first, with: sallyport key retire %s",
			usable[len(usable)-1].ID, usable[len(usable)-1].ID)
	}
	intermediates, err := keys.NewRing(keys.CAIntermediate, rows)
	if err != nil {
		return keys.Rotation{}, err
	}
	old, err := roots.Newest(cfg.Now())
	if err != nil {
		return keys.Rotation{}, err
	}
	fresh, err := newRoot(ctx, v, cfg)
	if err != nil {
		return keys.Rotation{}, err
	}
	below, err := newIntermediate(ctx, v, cfg, fresh)
	if err != nil {
		return keys.Rotation{}, err
	}
	cross, err := vouch(ctx, v, cfg, fresh, old)
	if err != nil {
		return keys.Rotation{}, err
	}
	fresh.Public += cross
	turn, err := v.Turn(ctx, roots, fresh, 0)
	if err != nil {
		return keys.Rotation{}, err
	}
	second, err := v.Turn(ctx, intermediates, below, 0)
	if err != nil {
		return keys.Rotation{}, err
	}
	turn.Under, turn.Changed = []keys.Key{second.Fresh}, append(turn.Changed, second.Changed...)
	return turn, nil
}

// vouch is a certificate for the key and name of one root, signed by another.
func vouch(ctx context.Context, v *keys.Vault, cfg Config, subject, issuer keys.Key) (string, error) {
	of, err := certificateOf(subject)
	if err != nil {
		return "", err
	}
	by, err := certificateOf(issuer)
	if err != nil {
		return "", err
	}
	signer, err := signerOf(ctx, v, issuer, by)
	if err != nil {
		return "", err
	}
	template, err := cfg.authority("", RootLife, 1)
	if err != nil {
		return "", err
	}
	template.Subject, template.SubjectKeyId = of.Subject, of.SubjectKeyId
	for _, end := range []time.Time{of.NotAfter, by.NotAfter} {
		if end.Before(template.NotAfter) {
			template.NotAfter = end
		}
	}
	der, err := x509.CreateCertificate(cfg.Rand, template, by, of.PublicKey, signer)
	if err != nil {
		return "", fault.Wrap(err, "sign a root by another one")
	}
	return pemOf(der), nil
}

// Below says which intermediate under a root may still have good certificates;
// empty if none does.
func Below(rows []keys.Key, root keys.Key, now time.Time) (string, error) {
	top, err := certificateOf(root)
	if err != nil {
		return "", err
	}
	for _, k := range rows {
		if k.Purpose != keys.CAIntermediate || !k.Usable(now) {
			continue
		}
		c, err := certificateOf(k)
		if err != nil {
			return "", err
		}
		if c.CheckSignatureFrom(top) == nil {
			return "the intermediate " + k.ID + " stands under it, retire that one first", nil
		}
	}
	return "", nil
}

// crosses are the certificates in a root's row by which other roots that are
// trusted vouch for it: what a server shows to a peer that knows only them.
func crosses(k keys.Key, roots []*x509.Certificate) ([]*x509.Certificate, error) {
	all, err := certificatesIn(k)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, c := range all[1:] {
		for _, by := range roots {
			if KeyHash(c) == KeyHash(all[0]) && !by.Equal(all[0]) && c.CheckSignatureFrom(by) == nil {
				out = append(out, c)
			}
		}
	}
	return out, nil
}
