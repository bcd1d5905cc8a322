package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/keys/ca"
	"github.com/sallyport-project/sallyport/internal/keys/file"
	"github.com/sallyport-project/sallyport/internal/keys/sshca"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Founded is what [Found] made: the first operator's credential, and what
// others must know of this installation.
type Founded struct {
	Operator    string       // subject id
	Certificate string       // PEM, leaf and chain
	Private     secret.Bytes // PEM
	NotAfter    time.Time
	CA          string // root, PEM
	CAHash      string // SHA-256 of the root's public key, hex
	LedgerKey   string // verifier key for audit verify
	SSHCA       string // authorized_keys line for TrustedUserCAKeys
}

// Found makes a new installation: the key encryption key, the store with all
// keys, CA, base policies, and the first operator. It refuses one that exists:
// an existing key file or a store with keys is a Conflict. Everything but the
// key file is one unit, so that a crash leaves either nothing or all.
func Found(ctx context.Context, c Config, operator string) (Founded, error) {
	if !subject.ValidName(operator) {
		return Founded{}, fault.Invalidf("operator name %q is not well-formed", operator)
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return Founded{}, fault.Unavailablef("the data directory %s cannot be made", c.DataDir).Because(err)
	}
	kek, err := firstKEK(c)
	if err != nil {
		return Founded{}, err
	}
	st, err := openStore(ctx, c, nil)
	if err != nil {
		return Founded{}, err
	}
	out, err := found(ctx, c, st, kek, operator)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if closed := st.Close(closing); err == nil {
		err = closed
	}
	return out, err
}

// firstKEK makes the key file; one that an interrupted init left is used.
func firstKEK(c Config) (*file.KEK, error) {
	if err := os.MkdirAll(filepath.Dir(c.KEK.File), 0o700); err != nil {
		return nil, fault.Unavailablef("the folder for the key file %s cannot be made", c.KEK.File).Because(err)
	}
	at := file.Config{Path: c.KEK.File, DataDir: c.DataDir}
	kek, err := file.Create(at)
	if fault.Is(err, fault.Conflict) {
		return file.Load(at)
	}
	return kek, err
}

func found(ctx context.Context, c Config, st *store.Store, kek keys.KEK, operator string) (Founded, error) {
	existing, err := st.Keys(ctx)
	if err != nil {
		return Founded{}, err
	}
	if len(existing) > 0 {
		return Founded{}, fault.Conflictf("this store is set up already; to get another operator credential run: sallyport auth recover")
	}
	vault, rows, err := firstKeys(ctx, c, kek)
	if err != nil {
		return Founded{}, err
	}
	ring, err := keys.NewRing(keys.RowMAC, rows)
	if err != nil {
		return Founded{}, err
	}
	mac, err := keys.NewMAC(ctx, vault, ring)
	if err != nil {
		return Founded{}, err
	}
	st.UseMAC(mac)
	authority, err := ca.Load(ctx, vault, rows, authorityConfig(c, time.Now))
	if err != nil {
		return Founded{}, err
	}
	first, writes, out, err := newOperator(authority, operator)
	if err != nil {
		return Founded{}, err
	}
	record := audit.Record{
		Version: 1, ID: id.New(), Type: "installation.founded", At: time.Now().UTC().Truncate(time.Microsecond), Outcome: audit.Done,
		Actor: audit.System("init"), Subject: first.ID, Serial: "1", Data: map[string]string{"trust_domain": c.TrustDomain},
	}
	for _, row := range rows {
		writes = append(writes, unit.Insert(row))
		record.Data["key."+string(row.Purpose)] = row.ID
		switch row.Purpose {
		case keys.Ledger:
			out.LedgerKey = row.Public
		case keys.SSHCA:
			out.SSHCA = row.Public
		}
	}
	for _, d := range policy.Installed(record.At) {
		writes = append(writes, unit.Insert(d), unit.Insert(policy.Edition{Document: d}))
		record.Policy = append(record.Policy, d.Label())
	}
	return out, st.Commit(ctx, unit.Unit{Writes: writes, Record: record})
}

// firstKeys makes one key of each purpose.
func firstKeys(ctx context.Context, c Config, kek keys.KEK) (*keys.Vault, []keys.Key, error) {
	vault, root, err := keys.Create(ctx, keys.Config{KEK: kek})
	if err != nil {
		return nil, nil, err
	}
	rows := []keys.Key{root}
	for _, k := range []struct {
		purpose   keys.Purpose
		algorithm keys.Algorithm
	}{
		{keys.RowMAC, keys.Random256},
		{keys.Pepper, keys.Random256},
		{keys.Token, keys.Ed25519},
		{keys.EAR, keys.ECDSAP256},
		{keys.Cookie, keys.Random256},
		{keys.Context, keys.Ed25519},
		{keys.Ledger, keys.Ed25519},
	} {
		row, err := vault.Generate(ctx, k.purpose, k.algorithm)
		if err != nil {
			return nil, nil, err
		}
		if k.purpose == keys.Ledger {
			if row, err = nameLedger(ctx, vault, row, c.TrustDomain+"/ledger/"+row.ID); err != nil {
				return nil, nil, err
			}
		}
		rows = append(rows, row)
	}
	caRoot, intermediate, err := ca.Found(ctx, vault, authorityConfig(c, time.Now))
	if err != nil {
		return nil, nil, err
	}
	ssh, err := sshca.Generate(ctx, vault)
	return vault, append(rows, caRoot, intermediate, ssh), err
}

// newOperator makes an administrator with a fresh key and certificate.
func newOperator(authority *ca.Authority, name string) (subject.Subject, []unit.Write, Founded, error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	first := subject.Subject{
		ID: id.New(), Version: 1, Kind: subject.Operator, State: subject.Registered, Role: "administrator", Name: name, Created: now, Changed: now,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return first, nil, Founded{}, fault.Wrap(err, "generate operator key")
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return first, nil, Founded{}, fault.Wrap(err, "make certificate request")
	}
	leaf, err := authority.Issue(ca.Request{CSR: csr, Subject: first.ID, Kind: string(first.Kind), Life: operatorLife})
	if err != nil {
		return first, nil, Founded{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return first, nil, Founded{}, fault.Wrap(err, "encode operator key")
	}
	defer clear(private)
	hash := authority.KeyHash()
	out := Founded{
		Operator: first.ID, Certificate: leaf.PEM, NotAfter: leaf.NotAfter, CA: authority.Bundle(), CAHash: hex.EncodeToString(hash[:]),
		Private: secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
	return first, []unit.Write{unit.Insert(first), unit.Insert(subject.Certificate{
		ID: leaf.Fingerprint, Version: 1, Subject: first.ID, Serial: leaf.Serial, NotAfter: leaf.NotAfter,
	})}, out, nil
}

// Recover makes another administrator on a server that is not running, for
// whoever holds the key file: the way back in when every operator credential is
// lost. It is recorded like everything else.
func Recover(ctx context.Context, c Config, operator string) (Founded, error) {
	if !subject.ValidName(operator) {
		return Founded{}, fault.Invalidf("operator name %q is not well-formed", operator)
	}
	st, ring, err := openData(ctx, c, nil)
	if err != nil {
		return Founded{}, err
	}
	first, writes, out, err := newOperator(ring.authority, operator)
	if err == nil {
		out.LedgerKey, out.SSHCA = ring.signing, ring.sshLines[ring.sshKey]
		err = st.Commit(ctx, unit.Unit{Writes: writes, Record: audit.Record{
			Version: 1, ID: id.New(), Type: "operator.recovered", At: first.Created, Outcome: audit.Done,
			Actor: audit.System("recover"), Subject: first.ID, Serial: "1",
			Data: map[string]string{"name": operator, "uid": strconv.Itoa(os.Getuid())},
		}})
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if closed := st.Close(closing); err == nil {
		err = closed
	}
	return out, err
}

// DeclareRestore accepts, on a server that is not running, a database that does
// not continue the ledger which this node has seen: a restored backup. Until
// then the server refuses to start. The declaration becomes a record of the
// ledger, with the checkpoint that was given up.
func DeclareRestore(ctx context.Context, c Config, reason string) error {
	st, err := openStore(ctx, c, nil)
	if err != nil {
		return err
	}
	_, opened := openKeys(ctx, c, st)
	switch err := st.DeclareRestore(ctx, audit.System("restore"), reason); {
	case fault.Is(err, fault.Conflict) && opened != nil:
		opened = fault.Wrap(opened, "open the store") // it is refused for another reason
	default:
		opened = err
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := st.Close(closing); opened == nil {
		return err
	}
	return opened
}
