package e2e

import (
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/policy"
	_ "github.com/sallyport-project/sallyport/internal/store" // the database's driver
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// behind changes the database of a stopped server, as somebody does who has the
// disk and no key.
func behind(t *testing.T, h *House, text string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(h.DataDir, "sallyport.db")+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer func() { must(t, db.Close()) }()
	done, err := db.ExecContext(t.Context(), text, args...)
	must(t, err)
	if n, err := done.RowsAffected(); err != nil || n != 1 {
		t.Fatalf("%s changed %d rows, %v", text, n, err)
	}
}

// TestRows_AreNotServedWhenAltered changes rows behind the server's back.
func TestRows_AreNotServedWhenAltered(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	raised, held, honest := w.enrol("agent", "deployer", "raised"), w.enrol("agent", "deployer", "held"), w.enrol("agent", "deployer", "honest")
	revived := w.enrol("agent", "deployer", "revived")
	altered, good := w.vend(held, 10*time.Minute), w.vend(honest, 10*time.Minute)
	must(t, done(w.admin.RevokeCertificate(ctx, revived.Serial, "test")))
	must(t, w.Stop())

	behind(t, w.House, "UPDATE subjects SET role = 'reporter' WHERE id = ?", raised.Subject.ID)
	behind(t, w.House, "UPDATE grants SET expires = expires + 1 WHERE id = ?", altered.Grant)
	behind(t, w.House, "UPDATE certificates SET revoked = 0 WHERE serial = ?", revived.Serial)

	w = start(t, w.House)
	raised, held, honest, revived = w.meet(raised), w.meet(held), w.meet(honest), w.meet(revived)
	for name, p := range map[string]person{"a raised role": raised, "a certificate that was revived": revived} {
		if me, err := p.client.Whoami(ctx); err == nil {
			t.Errorf("%s is served: %+v", name, me)
		}
	}
	if g, err := held.client.Grant(ctx, altered.Grant); err == nil {
		t.Errorf("an altered grant is served: %+v", g)
	}
	if page, err := w.admin.Grants(ctx, sallyport.GrantQuery{Subject: "all"}); err == nil {
		for _, g := range page.Items {
			if g.ID == altered.Grant {
				t.Errorf("an altered grant is listed: %+v", g)
			}
		}
	}
	if _, err := honest.client.Grant(ctx, good.Grant); err != nil {
		t.Errorf("the neighbour of an altered row suffers: %v", err)
	}
	w.vend(honest, time.Minute)
	status, err := w.admin.Status(ctx)
	must(t, err)
	if status.BrokenRows < 3 {
		t.Errorf("the status shows %d altered rows", status.BrokenRows)
	}
	if !strings.Contains(w.Log(), "level=ERROR") {
		t.Error("the log says nothing of altered rows")
	}
	must(t, w.Stop())
}

// TestKeys_AreNotUsedWhenAltered flips a bit of a sealed key: the server must not
// start.
func TestKeys_AreNotUsedWhenAltered(t *testing.T) {
	h := found(t, Options{})
	behind(t, h, "UPDATE keys SET sealed = CAST(substr(sealed, 1, length(sealed) - 1) || x'00' AS BLOB) WHERE purpose = 'ssh-ca'")
	_, err := h.Command(t.Context(), "serve")
	if exit := new(ExitError); !errors.As(err, &exit) || exit.Code == 0 {
		t.Errorf("a server with an altered key: %v", err)
	}
}

// TestLedger_NamesTheAlteredRecord changes one stored record and verifies an
// export.
func TestLedger_NamesTheAlteredRecord(t *testing.T) {
	w := equipped(t, Options{})
	ctx := t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	for range 3 {
		w.vend(agent, time.Minute)
	}
	var victim audit.Record
	must(t, Eventually(5*time.Second, func() error {
		list, err := w.Records(ctx, "grant.issued")
		if err == nil && len(list) < 3 {
			err = errors.New("the records have no place yet")
		}
		if err == nil {
			victim = list[1]
		}
		return err
	}))
	must(t, w.Stop())
	behind(t, w.House, `UPDATE ledger SET leaf = replace(leaf, '"build-7"', '"build-8"') WHERE id = ?`, victim.ID)
	behind(t, w.House, `UPDATE ledger SET leaf = replace(leaf, '"kind":"ssh-user-cert"', '"kind":"ssh-user-cerT"') WHERE id = ?`, victim.ID)

	w = start(t, w.House)
	export := filepath.Join(t.TempDir(), "export")
	if _, err := w.House.Command(ctx, "audit", "export", export, "--url", "https://"+w.Main, "--key", w.House.LedgerKey); err != nil {
		t.Fatalf("the export of an altered ledger, which judges nothing: %v", err)
	}
	out, err := w.House.Command(ctx, "audit", "verify", export, "--key", w.House.LedgerKey, "--output", "json")
	exits(t, "verifying an altered ledger", err, 4, victim.ID)
	var report audit.Report
	must(t, json.Unmarshal([]byte(out), &report))
	if report.OK || len(report.Problems) != 1 || report.Problems[0].Kind != audit.BadRecord || report.Problems[0].Record != victim.ID {
		t.Errorf("the report is %+v", report)
	}
	_, err = w.admin.RecordProof(ctx, victim.ID)
	if err == nil {
		t.Error("the server proves an altered record")
	}
}

// TestResource_OldValuesDoNotComeBack puts what was deleted back, behind the
// server's back: under its own version, and by reviving the row.
func TestResource_OldValuesDoNotComeBack(t *testing.T) {
	h := found(t, Options{
		Further: []any{map[string]any{"name": "guests", "address": "127.0.0.1:0", "doors": []string{"kbs"}, "plain": true}},
		Config:  map[string]any{"verifiers": map[string]any{"sample": map[string]any{"insecure": true}}},
	})
	w := start(t, h)
	ctx := t.Context()
	_, err := w.admin.SetPolicy(ctx, "resource-policy", "kbs-resource", policy.ResourceAllowAll())
	must(t, err)
	first, err := w.admin.PutResource(ctx, "default", "key", "disk", []byte("old"))
	must(t, err)
	_, err = w.admin.PutResource(ctx, "default", "key", "gone", []byte("gone"))
	must(t, err)
	must(t, w.Stop())
	old := sealed(t, h, "default/key/disk")
	gone := sealed(t, h, "default/key/gone")

	w = start(t, h)
	must(t, w.admin.DeleteResource(ctx, "default", "key", "disk", false))
	must(t, w.admin.DeleteResource(ctx, "default", "key", "gone", false))
	again, err := w.admin.PutResource(ctx, "default", "key", "disk", []byte("new"))
	must(t, err)
	if first.Version != 1 || again.Version != 3 {
		t.Fatalf("versions %d and %d", first.Version, again.Version)
	}
	must(t, w.Stop())
	behind(t, h, "UPDATE resources SET sealed = ? WHERE id = 'default/key/disk'", old)
	behind(t, h, "UPDATE resources SET sealed = ?, deleted = 0 WHERE id = 'default/key/gone'", gone)

	behind(t, h, "UPDATE resource_versions SET sealed = ? WHERE id LIKE 'default/key/disk@%1'", gone)

	w = start(t, h)
	must(t, done(w.admin.SetPolicy(ctx, "readers", "sallyport", `package sallyport
administer := {"allow": true} if {
	input.action == "read"
	input.target.kind == "resource"
}
`)))
	if v, err := w.admin.ReadResource(ctx, "default", "key", "disk", 1); err == nil {
		t.Errorf("the value of another path is read as an older version: %q", v.Value.Reveal())
	}
	if v, err := w.admin.ReadResource(ctx, "default", "key", "gone", 1); err != nil || v.Value.Reveal() != "gone" {
		t.Errorf("an older version that nobody altered: %v", err)
	}
	g, _ := newGuest(t, "http://"+w.Bound["guests"], http.DefaultTransport)
	_, err = g.Attest(ctx)
	must(t, err)
	for _, path := range []string{"default/key/disk", "default/key/gone"} {
		if plain, _, err := g.Resource(ctx, path); err == nil {
			t.Errorf("%s is %q", path, plain.Reveal())
		}
	}
	must(t, w.Stop())
}

func sealed(t *testing.T, h *House, path string) (value []byte) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(h.DataDir, "sallyport.db")+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer func() { must(t, db.Close()) }()
	must(t, db.QueryRowContext(t.Context(), "SELECT sealed FROM resources WHERE id = ?", path).Scan(&value))
	return value
}

// TestRevoke_DoesNotClaimWhatItCannotRead revokes an agent one of whose grants
// was altered: the others are revoked, and nobody says that all are.
func TestRevoke_DoesNotClaimWhatItCannotRead(t *testing.T) {
	w, ctx := equipped(t, Options{}), t.Context()
	agent := w.enrol("agent", "deployer", "build-7")
	altered, good := w.vend(agent, 10*time.Minute), w.vend(agent, 10*time.Minute)
	must(t, w.Stop())
	behind(t, w.House, "UPDATE grants SET expires = expires + 1 WHERE id = ?", altered.Grant)
	w = start(t, w.House)
	out, err := w.admin.ChangeSubject(ctx, agent.Subject.ID, sallyport.SubjectChange{Act: "revoke", Reason: "test"})
	must(t, err)
	if out.Recalled == nil || out.Recalled.Revoked != 1 || !out.Recalled.Unfinished {
		t.Errorf("answered %+v", out.Recalled)
	}
	detail, err := w.admin.Subject(ctx, agent.Subject.ID)
	must(t, err)
	if !detail.Subject.Recalling || detail.Grants["active"] != 1 || detail.Grants["revoked"] != 1 {
		t.Errorf("shown %+v", detail)
	}
	if g, err := w.admin.Grant(ctx, good.Grant); err != nil || g.State != "revoked" {
		t.Errorf("the neighbour of an altered row is %s, %v", g.State, err)
	}
	must(t, w.Stop())
}
