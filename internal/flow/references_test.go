package flow_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/subject"
)

func made(key string, at time.Time) reference.File {
	return reference.File{Name: key + ".crl", Data: []byte(key + " " + at.UTC().Format(time.RFC3339))}
}

func TestImportEndorsements_StoresWhatIsNewAndRecordsIt(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	old, now := h.now().Add(-24*time.Hour), h.now().Add(-time.Hour)
	out, err := h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("a", old), made("b", now)}, "")
	must(t, err)
	if len(out) != 2 || !out[0].Changed || out[0].ID != "made-up/a" || out[0].Version != 1 {
		t.Fatalf("imported %+v", out)
	}
	r := h.records("reference.imported")[0]
	if r.Data["made-up/a"] != "sha256:"+out[0].SHA256+" v1 a.crl" || len(r.Data) != 2 || len(r.Policy) == 0 {
		t.Errorf("record %+v", r)
	}
	// The same again changes nothing, and records nothing.
	out, err = h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("a", old)}, "")
	must(t, err)
	if len(out) != 1 || out[0].Changed {
		t.Errorf("again: %+v", out)
	}
	must(t, second(h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("a", now)}, "")))
	_, err = h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("c", now), made("a", old)}, "")
	want(t, err, fault.Conflict) // an old list would bring back what the new one revoked
	_, err = h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("c", now), {Name: "x", Data: []byte("?")}}, "")
	want(t, err, fault.Invalid)
	count(t, len(h.records("reference.imported")), 2, "records")
	list, err := h.gate.Endorsements(ctx, h.admin.caller())
	must(t, err)
	if len(list) != 2 || list[0].Version != 2 || list[0].Author != h.admin.caller().Subject.ID {
		t.Errorf("listed %+v", list)
	}
	must(t, h.gate.RemoveEndorsement(ctx, h.admin.caller(), "made-up/a"))
	want(t, h.gate.RemoveEndorsement(ctx, h.admin.caller(), "made-up/a"), fault.NotFound)
	must(t, second(h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("a", old)}, ""))) // meant so
	if list, err = h.gate.Endorsements(ctx, h.admin.caller()); err != nil || list[0].Version != 4 {
		t.Errorf("after removal: %+v, %v", list, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestReferences_AreTheOperatorsAlone(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	who := h.stored(subject.Agent, "deployer", "x").caller()
	_, err := h.gate.ImportEndorsements(ctx, who, []reference.File{made("a", h.now())}, "")
	want(t, err, fault.Denied)
	_, err = h.gate.SetReferenceValues(ctx, who, []reference.Setting{{Name: "svn", JSON: json.RawMessage("1")}}, "set")
	want(t, err, fault.Denied)
	want(t, h.gate.RemoveEndorsement(ctx, who, "made-up/a"), fault.Denied)
	want(t, h.gate.RemoveReferenceValue(ctx, who, "svn"), fault.Denied)
	want(t, second(h.gate.Endorsements(ctx, who)), fault.Denied)
	want(t, second(h.gate.ReferenceValues(ctx, who)), fault.Denied)
	want(t, second(h.gate.ReferenceValue(ctx, who, "svn")), fault.Denied)
	want(t, second(h.gate.RecordedClaims(ctx, who, "x")), fault.Denied)
}

func TestAttest_NeedsAnEndorsementAndFeelsItsRemoval(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	lib := h.guests.Library.(*shelves)
	lib.need = "a"
	g := h.guest()
	want(t, g.attest(), fault.Unavailable)
	must(t, second(h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("a", h.now())}, "")))
	must(t, g.attest())
	must(t, h.gate.RemoveEndorsement(ctx, h.admin.caller(), "made-up/a"))
	want(t, g.attest(), fault.Unavailable)
}

// TestAttest_IsJudgedByWhatIsThereAtTheCommit removes an endorsement, on another
// replica, after a guest's evidence was judged by it and before its admission
// commits.
func TestAttest_IsJudgedByWhatIsThereAtTheCommit(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	h.guests.Library.(*shelves).need = "a"
	must(t, second(h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("a", h.now())}, "")))
	other := h.newGate() // has read what is there, and does not look again by itself
	must(t, h.gate.RemoveEndorsement(ctx, h.admin.caller(), "made-up/a"))
	h.gate = other
	g := h.guest()
	want(t, g.attest(), fault.Unavailable)
	count(t, len(h.records("workload.attested")), 0, "guests")
}

// wanted is a fetcher that has one file.
type wanted struct {
	file  reference.File
	asked int
}

func (w *wanted) With(evidence.Want) []evidence.Want { return nil }

func (w *wanted) Fetch(_ context.Context, e evidence.Want) ([]reference.File, error) {
	w.asked++
	if !strings.HasPrefix(string(w.file.Data), e.Key+" ") {
		return nil, fault.NotFoundf("not here")
	}
	return []reference.File{w.file}, nil
}

func TestAttest_FetchesWhatIsMissing(t *testing.T) {
	h := newHouse(t)
	h.guests.Library.(*shelves).need = "a"
	f := &wanted{file: made("b", h.now())}
	h.gate = h.newGate(func(c *flow.Config) { c.Guests.Fetcher = f })
	g := h.guest()
	want(t, g.attest(), fault.Unavailable)
	count(t, f.asked, 1, "questions")
	f.file = made("a", h.now())
	must(t, g.attest())
	must(t, g.attest()) // it is stored
	count(t, f.asked, 2, "questions")
	r := h.records("reference.fetched")
	if len(r) != 1 || r[0].Actor.Kind != "system" || r[0].Target != "made-up/a" || len(r[0].Data) != 1 {
		t.Errorf("records %+v", r)
	}
	// What was fetched is fetched anew before it ends; what an operator brought is not.
	ctx := context.Background()
	must(t, second(h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("z", h.now())}, "")))
	must(t, h.gate.TendReferences(ctx))
	count(t, f.asked, 2, "questions")
	h.pass(40 * time.Hour)
	f.file = made("a", h.now())
	must(t, h.gate.TendReferences(ctx))
	count(t, f.asked, 3, "questions")
	list, err := h.gate.Endorsements(ctx, h.admin.caller())
	must(t, err)
	if list[0].Version != 2 || list[1].Version != 1 {
		t.Errorf("after tending: %+v", list)
	}
}

// Whoever shows evidence must not bring back what an operator has removed.
func TestAttest_FetchesNothingThatAnOperatorRemoved(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	h.guests.Library.(*shelves).need = "a"
	f := &wanted{file: made("a", h.now())}
	h.gate = h.newGate(func(c *flow.Config) { c.Guests.Fetcher = f })
	g := h.guest()
	must(t, g.attest())
	must(t, h.gate.RemoveEndorsement(ctx, h.admin.caller(), "made-up/a"))
	want(t, g.attest(), fault.Unavailable)
	count(t, f.asked, 1, "questions")
	count(t, len(h.records("reference.fetched")), 1, "fetched")
	must(t, second(h.gate.ImportEndorsements(ctx, h.admin.caller(), []reference.File{made("a", h.now())}, "")))
	must(t, g.attest())
}

// A stranger can name any version of a chip, and the maker has an endorsement for
// each: none of them is stored unless the evidence is good by it.
func TestAttest_StoresNoEndorsementForForgedEvidence(t *testing.T) {
	h := newHouse(t)
	lib := h.guests.Library.(*shelves)
	lib.need, lib.forged = "a", true
	h.gate = h.newGate(func(c *flow.Config) { c.Guests.Fetcher = &wanted{file: made("a", h.now())} })
	g := h.guest()
	want(t, g.attest(), fault.Denied)
	count(t, len(h.records("reference.fetched")), 0, "fetched")
	count(t, len(h.records("workload.refused")), 1, "refusals")
	lib.forged = false
	must(t, g.attest())
	count(t, len(h.records("reference.fetched")), 1, "fetched")
}

func TestReferenceValues_DecideTheAppraisalUntilTheyExpire(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	status := func() string {
		t.Helper()
		g := h.guest()
		must(t, g.attest())
		all := h.records("workload.attested")
		return all[len(all)-1].Data["status"]
	}
	if s := status(); s != "contraindicated" {
		t.Errorf("without values: %s", s)
	}
	payload := base64.StdEncoding.EncodeToString([]byte(`{"launch_digest":["abcde"],"svn":["1"],"major_version":1,"minimum_minor_version":4}`))
	must(t, h.gate.RegisterReferenceValues(ctx, h.admin.caller(), []byte(`{"version":"0.1.0","type":"sample","payload":"`+payload+`"}`)))
	if s := status(); s != "affirming" {
		t.Errorf("with values: %s", s)
	}
	r := h.records("reference.set")[0]
	if r.Target != "launch_digest major_version minimum_minor_version svn" || r.Data["source"] != "message" || r.Data["values"] != "4" || !strings.HasPrefix(r.Data["value svn"], "sha256:") {
		t.Errorf("record %+v", r)
	}
	v, err := h.gate.ReferenceValue(ctx, h.admin.caller(), "svn")
	must(t, err)
	if string(v.JSON) != `["1"]` || h.now().Add(reference.Life).Sub(v.Expires).Abs() > time.Minute {
		t.Errorf("value %+v", v)
	}
	out, err := h.gate.SetReferenceValues(ctx, h.admin.caller(), []reference.Setting{{Name: "svn", JSON: json.RawMessage(`["1"]`), Expires: h.now().Add(time.Minute)}}, "set")
	must(t, err)
	if out[0].Version != 2 {
		t.Errorf("set again: %+v", out)
	}
	h.pass(2 * time.Minute)
	if s := status(); s != "contraindicated" {
		t.Errorf("after it expired: %s", s)
	}
	want(t, second(h.gate.ReferenceValue(ctx, h.admin.caller(), "svn")), fault.NotFound)
	must(t, h.gate.RemoveReferenceValue(ctx, h.admin.caller(), "launch_digest"))
	want(t, h.gate.RemoveReferenceValue(ctx, h.admin.caller(), "launch_digest"), fault.NotFound)
	for _, bad := range []reference.Setting{
		{Name: "", JSON: json.RawMessage("1")},
		{Name: "a b", JSON: json.RawMessage("1")},
		{Name: "x", JSON: json.RawMessage("{")},
		{Name: "x"},
		{Name: "x", JSON: json.RawMessage("1"), Expires: h.now()},
	} {
		_, err := h.gate.SetReferenceValues(ctx, h.admin.caller(), []reference.Setting{bad}, "set")
		want(t, err, fault.Invalid)
	}
}

func TestRecordedClaims_AreThoseOfTheDecision(t *testing.T) {
	h, ctx := newHouse(t), context.Background()
	g := h.guest()
	must(t, g.attest())
	h.ledger() // has its place now
	r := h.records("workload.attested")[0]
	out, err := h.gate.RecordedClaims(ctx, h.admin.caller(), r.ID)
	must(t, err)
	if len(out.Devices) != 1 || out.Devices[0].Name != "cpu0" || out.Devices[0].TEE != "sample" || out.Devices[0].Claims["launch_digest"] != "abcde" {
		t.Errorf("recorded %+v", out)
	}
	h.pass(time.Hour)
	want(t, second(h.gate.RecordedClaims(ctx, h.admin.caller(), r.ID)), fault.NotFound)
}
