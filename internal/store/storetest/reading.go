package storetest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/grant"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/keys"
	"github.com/sallyport-project/sallyport/internal/notify"
	"github.com/sallyport-project/sallyport/internal/plugin"
	"github.com/sallyport-project/sallyport/internal/policy"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/resource"
	"github.com/sallyport-project/sallyport/internal/secret"
	"github.com/sallyport-project/sallyport/internal/store"
	"github.com/sallyport-project/sallyport/internal/subject"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// sample is one row of a table and how to read it back.
type sample struct {
	row  unit.Row
	read func(ctx context.Context, s *store.Store) (any, error)
}

// samples are a row of every table.
func samples(t *testing.T) []sample {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	later := now.Add(time.Hour)
	sub := Subject("somebody")
	g := Grant(sub.ID)
	g.Sealed, g.Tags = []byte{0, 1, 2}, []string{"x"}
	cert := subject.Certificate{ID: "ff", Version: 1, Subject: sub.ID, Serial: "0a", Issuer: "CN=x", NotAfter: later}
	session := subject.Session{ID: id.New(), Version: 1, Subject: sub.ID, Parent: "p", Certificate: "ff", Expires: later}
	pass := subject.Passport{ID: id.New(), Version: 1, Subject: sub.ID, Digest: "d1", Token: "token", Expires: later}
	inv := subject.Invitation{ID: id.New(), Version: 1, Kind: subject.Agent, Role: "agent", Team: "t", Name: "n", Author: sub.ID, Expires: later}
	res := resource.Resource{ID: "a/b/c", Version: 1, Sealed: []byte("sealed"), Author: sub.ID, Created: now, Changed: now}
	doc := policy.Document{Name: "base", Version: 1, Kind: policy.Sallyport, Source: "package sallyport", Author: sub.ID, At: now, State: policy.Active}
	key := keys.Key{ID: id.New(), Version: 1, Purpose: keys.Token, Algorithm: keys.Ed25519, State: keys.Active, Public: "pem", Sealed: []byte("s"), Created: now}
	out := unit.Outcome{ID: "o", Version: 1, Sealed: []byte("answer"), Expires: later}
	del := notify.Delivery{
		ID: "n/webhook", Version: 1, Channel: "webhook", Attempts: 1, Due: now, Error: "e",
		Message: notify.Notification{ID: "n", Type: "grant.revoked", At: now, Urgency: notify.High, Title: "t"},
	}
	word := reference.Endorsement{
		Endorsement: evidence.Endorsement{Kind: "snp-crl", Key: "Genoa", Data: []byte{1, 2}, NotBefore: now, NotAfter: later},
		Version:     1, Source: "genoa.crl", Author: sub.ID, At: now, State: reference.Active,
	}
	value := reference.Value{
		Name: "mr_td", Version: 1, JSON: []byte(`["00"]`), Expires: later, Source: "set", Author: sub.ID, At: now, State: reference.Active,
	}
	return append(pluginSamples(t, sub.ID, now, later), []sample{
		{word, func(ctx context.Context, s *store.Store) (any, error) { return first(s.Endorsements(ctx)) }},
		{value, func(ctx context.Context, s *store.Store) (any, error) { return first(s.ReferenceValues(ctx)) }},
		{sub, func(ctx context.Context, s *store.Store) (any, error) { return s.Subject(ctx, sub.ID) }},
		{cert, func(ctx context.Context, s *store.Store) (any, error) { return s.Certificate(ctx, cert.ID) }},
		{session, func(ctx context.Context, s *store.Store) (any, error) { return s.Session(ctx, session.ID) }},
		{pass, func(ctx context.Context, s *store.Store) (any, error) { return s.Passport(ctx, pass.ID) }},
		{inv, func(ctx context.Context, s *store.Store) (any, error) { return s.Invitation(ctx, inv.ID) }},
		{g, func(ctx context.Context, s *store.Store) (any, error) { return s.Grant(ctx, g.ID) }},
		{res, func(ctx context.Context, s *store.Store) (any, error) { return s.Resource(ctx, res.ID) }},
		{doc, func(ctx context.Context, s *store.Store) (any, error) { return first(s.Policies(ctx)) }},
		{policy.Edition{Document: doc}, func(ctx context.Context, s *store.Store) (any, error) {
			d, err := s.PolicyVersion(ctx, "base", 1)
			return policy.Edition{Document: d}, err
		}},
		{key, func(ctx context.Context, s *store.Store) (any, error) { return first(s.Keys(ctx)) }},
		{out, func(ctx context.Context, s *store.Store) (any, error) { return s.Outcome(ctx, "o") }},
		{del, func(ctx context.Context, s *store.Store) (any, error) { return first(s.DeliveriesDue(ctx, now, 1)) }},
	}...)
}

// pluginSamples are those of the tables about plugins.
func pluginSamples(t *testing.T, author string, now, later time.Time) []sample {
	t.Helper()
	pub, err := plugin.NewKey(ed25519.PublicKey(bytes.Repeat([]byte{7}, 32)), "acme", nil, author, now)
	must(t, err)
	pub, err = pub.Limited(plugin.UsePackage, now, later)
	must(t, err)
	acme, err := plugin.NewPublisher("acme", author, now)
	must(t, err)
	floor, err := plugin.RaiseFloor(nil, "sshcert", "1.0.0", plugin.ByOperator, false, author, now)
	must(t, err)
	inst := plugin.Installed{
		Name: "sshcert", Version: 1, Package: "1.0.0", Digest: "sha256:00", Publisher: "acme", KeyIDs: []string{pub.ID},
		Use: plugin.UsePackage, Asks: []string{"network *:443"}, State: plugin.Active, At: now, Author: author,
	}
	was := plugin.Remember(inst, "main", nil)
	repo, err := plugin.NewRepository("main", "https://plugins.example", []byte("{}"), author, now)
	must(t, err)
	repo = repo.See(plugin.Seen{Root: []byte("{}"), Timestamp: []byte(`{"a": 1}`)}, now)
	repo.Version = 1
	bring, err := plugin.NewUploadToken(secret.FromString("a secret"), "acme", []string{"acme-*"}, strings.Repeat("ab", 32), author, now.Add(time.Hour), now)
	must(t, err)
	kept := plugin.Value{Space: "sshcert@acme", Key: "a/key", Version: 1, Data: []byte{0, 1}, Changed: now}
	return []sample{
		{acme, func(ctx context.Context, s *store.Store) (any, error) {
			j, err := s.Judging(ctx)
			return left(j.Publishers, err, acme.Table(), j.Damaged.Publishers[acme.Name])
		}},
		{floor, func(ctx context.Context, s *store.Store) (any, error) {
			j, err := s.Judging(ctx)
			return left(j.Floors, err, floor.Table(), j.Damaged.Floors[floor.Name])
		}},
		{pub, func(ctx context.Context, s *store.Store) (any, error) {
			j, err := s.Judging(ctx)
			return left(j.Keys, err, pub.Table(), j.Damaged.Keys[pub.ID])
		}},
		{inst, func(ctx context.Context, s *store.Store) (any, error) {
			row, err := first(s.Plugins(ctx))
			if r, ok := row.(plugin.Installed); ok && r.Name == inst.Name && r.State == plugin.Unread {
				return nil, fault.Internalf("the row of plugins is damaged")
			}
			return row, err
		}},
		{was, func(ctx context.Context, s *store.Store) (any, error) { return first(s.Installations(ctx)) }},
		{kept, func(ctx context.Context, s *store.Store) (any, error) {
			return s.PluginValue(ctx, "sshcert@acme", "a/key")
		}},
		{bring, func(ctx context.Context, s *store.Store) (any, error) { return first(s.UploadTokens(ctx)) }},
		{repo, func(ctx context.Context, s *store.Store) (any, error) { return first(s.Repositories(ctx)) }},
	}
}

// left is first for a list that leaves damaged rows out and names them.
func left[T any](list []T, err error, table string, damaged bool) (any, error) {
	if damaged && len(list) == 0 && err == nil {
		return nil, fault.Internalf("the row of %s is damaged", table)
	}
	return first(list, err)
}

func first[T any](list []T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fault.NotFoundf("the list is empty")
	}
	return list[0], nil
}

// insert is the unit that stores a sample.
func insert(r unit.Row) unit.Unit {
	if g, ok := r.(grant.Grant); ok {
		return Issue(g)
	}
	return unit.Unit{Writes: []unit.Write{unit.Insert(r)}, Record: Record("row.stored")}
}

func rows(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	for _, c := range samples(t) {
		if _, err := c.read(ctx, s); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: reading what is not there gives %v", c.row.Table(), err)
		}
		if err := s.Commit(ctx, insert(c.row)); err != nil {
			t.Errorf("%s: %v", c.row.Table(), err)
			continue
		}
		got, err := c.read(ctx, s)
		if err != nil {
			t.Errorf("%s: %v", c.row.Table(), err)
			continue
		}
		if d := cmp.Diff(any(c.row), got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s came back changed:\n%s", c.row.Table(), d)
		}
	}
}

// guarded are the tables whose rows carry a MAC.
var guarded = "subjects certificates sessions passports invitations grants policies policy_versions publishers trust floors plugins installations " +
	"repositories upload_tokens endorsements reference_values plugin_values keys"

// everyColumn changes each column of each guarded table behind the store's
// back, and the MAC itself. The row must not be served.
func everyColumn(t *testing.T, e Engine) {
	ctx, cfg := context.Background(), e.Config(t)
	s := Open(t, cfg)
	list := samples(t)
	for _, c := range list {
		must(t, s.Commit(ctx, insert(c.row)))
	}
	db := e.DB(t, cfg)
	tables, flips := map[string]bool{}, int64(0)
	for _, c := range list {
		table := c.row.Table()
		if !strings.Contains(" "+guarded+" ", " "+table+" ") {
			continue
		}
		tables[table] = true
		for _, column := range columns(t, db, table)[1:] { // another id is another row
			if _, err := c.read(ctx, s); err != nil {
				t.Fatalf("%s.%s: before the change: %v", table, column, err)
			}
			var was any
			must(t, db.QueryRowContext(ctx, "SELECT "+column+" FROM "+table).Scan(&was))
			set := "UPDATE " + table + " SET " + column + " = $1"
			tamper(t, db, set, changed(was))
			forget(t, s)
			_, err := c.read(ctx, s)
			if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), table) {
				t.Errorf("%s.%s: a changed row is answered with %v", table, column, err)
			} else if strings.Contains(fault.Public(err), table) {
				t.Errorf("%s.%s: a stranger reads %q", table, column, fault.Public(err))
			}
			flips++
			tamper(t, db, set, was)
		}
	}
	if len(tables) != len(strings.Fields(guarded)) {
		t.Errorf("only %v were tried", tables)
	}
	if s.Broken() != int64(len(tables)) { // each row once, however often it was met
		t.Errorf("%d damaged rows were counted in %d changes of %d rows", s.Broken(), flips, len(tables))
	}
}

// changed is another value of the same type.
func changed(v any) any {
	switch v := v.(type) {
	case int64:
		return v + 1
	case []byte:
		c := append([]byte{}, v...)
		if len(c) == 0 {
			return []byte{1}
		}
		c[len(c)/2] ^= 1
		return c
	case string:
		return v + "x"
	}
	return nil
}

// columns are the names of a table's columns.
func columns(t *testing.T, db *sql.DB, table string) []string {
	t.Helper()
	rows, err := db.QueryContext(context.Background(), "SELECT * FROM "+table+" LIMIT 0")
	must(t, err)
	names, err := rows.Columns()
	must(t, err)
	must(t, errors.Join(rows.Err(), rows.Close()))
	return names
}

// tamper runs SQL behind the store's back.
func tamper(t *testing.T, db *sql.DB, text string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(context.Background(), text, args...)
	must(t, err)
}

func filters(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	a, b := Subject("a"), Subject("b")
	must(t, s.Commit(ctx, Birth(a)))
	must(t, s.Commit(ctx, Birth(b)))
	for i := range 25 {
		g := Grant(a.ID)
		if i%5 == 0 {
			g = Grant(b.ID)
			g.Kind, g.DueAt = "github-pat", time.Now().Add(-time.Minute)
		}
		must(t, s.Commit(ctx, Issue(g)))
	}
	count := func(f grant.Filter, want int) []grant.Grant {
		t.Helper()
		list, err := s.Grants(ctx, f)
		if err != nil || len(list) != want {
			t.Errorf("%+v: %d grants, want %d: %v", f, len(list), want, err)
		}
		return list
	}
	check := func() {
		t.Helper()
		count(grant.Filter{}, 25)
		count(grant.Filter{Subject: a.ID}, 20)
		count(grant.Filter{Subject: b.ID, State: grant.Active}, 5)
		count(grant.Filter{Subject: b.ID, Kind: "ssh-user-cert"}, 0)
		page := count(grant.Filter{Subject: a.ID, Limit: 15}, 15)
		count(grant.Filter{Subject: a.ID, Limit: 15, After: page[14].ID}, 5)
	}
	check() // while their records are pending
	Running(t, s)
	Eventually(t, "all records have a place", func() bool { n, err := s.PendingCount(ctx); return err == nil && n == 0 })
	check() // and when they have their places
	due, err := s.GrantsDue(ctx, time.Now(), 3)
	if err != nil || len(due) != 3 {
		t.Errorf("%d due, %v", len(due), err)
	}
	got, err := s.SubjectByName(ctx, subject.Agent, "b")
	if err != nil || got.ID != b.ID {
		t.Errorf("by name: %v, %v", got, err)
	}
	_, err = s.SubjectByName(ctx, subject.Machine, "b")
	want(t, err, fault.NotFound)
	for i := range 12 {
		name := fmt.Sprintf("r/%c/x", 'a'+i)
		must(t, s.Commit(ctx, insert(resource.Resource{ID: name, Version: 1})))
	}
	list, err := s.Resources(ctx, "r/", "r/c/x", 5)
	if err != nil || len(list) != 5 || list[0].ID != "r/d/x" {
		t.Errorf("resources: %v, %v", list, err)
	}
}

// callers changes a subject while it is read together with a session.
func callers(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	sub := Subject("a")
	must(t, s.Commit(ctx, Birth(sub)))
	session := subject.Session{ID: id.New(), Version: 1, Subject: sub.ID, Expires: time.Now().Add(time.Hour)}
	must(t, s.Commit(ctx, insert(session)))
	stop := make(chan struct{})
	var tasks sync.WaitGroup
	tasks.Go(func() {
		who, whose := session, sub
		for {
			select {
			case <-stop:
				return
			default:
			}
			who.Version++
			whose.Version++
			who.Reason, whose.Reason = fmt.Sprint(who.Version), fmt.Sprint(whose.Version)
			u := unit.Unit{Writes: []unit.Write{unit.Update(who), unit.Update(whose)}, Record: Record("subject.changed")}
			if err := s.Commit(ctx, u); err != nil {
				t.Errorf("change: %v", err)
				return
			}
		}
	})
	for range 200 {
		who, whose, err := s.Caller(ctx, session.ID)
		if err != nil || who.Version != whose.Version || who.Reason != whose.Reason {
			t.Fatalf("session %d and subject %d: %v", who.Version, whose.Version, err)
		}
	}
	close(stop)
	tasks.Wait()
	_, _, err := s.Caller(ctx, "nobody")
	want(t, err, fault.NotFound)
	live, err := s.SessionsOf(ctx, sub.ID)
	if err != nil || len(live) != 1 {
		t.Errorf("%d sessions, %v", len(live), err)
	}
}

// recalls finds what is to be done for a subject that was revoked, in place and
// pending, of that subject alone.
func recalls(t *testing.T, e Engine) {
	ctx, s := context.Background(), Open(t, e.Config(t))
	now := time.Now().UTC().Truncate(time.Microsecond)
	sub, other := Subject("a"), Subject("b")
	sub.Recall = now
	must(t, s.Commit(ctx, Birth(sub)))
	must(t, s.Commit(ctx, Birth(other)))
	states := []grant.State{grant.Active, grant.Manual, grant.Active, grant.Revoked, grant.Revoking, grant.Active, grant.Intent}
	var active []string
	issue := func(of string, state grant.State) string {
		g := Grant(of)
		g.State = state
		must(t, s.Commit(ctx, Issue(g)))
		return g.ID
	}
	for i, state := range states {
		if i == len(states)/2 { // the older half has its place, the newer is pending
			stop := Running(t, s)
			Eventually(t, "records have their places", func() bool { n, err := s.PendingCount(ctx); return err == nil && n == 0 })
			stop()
		}
		if got := issue(sub.ID, state); state == grant.Active {
			active = append(active, got)
		}
		issue(other.ID, state)
	}
	late := Grant(sub.ID)
	late.ExpiresAt = now.Add(-time.Minute)
	must(t, s.Commit(ctx, Issue(late)))
	active = append(active, late.ID)

	var found []string
	for after := ""; ; {
		page, err := s.GrantsToRecall(ctx, sub.ID, after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, g := range page {
			found = append(found, g.ID)
		}
		after = found[len(found)-1]
	}
	if d := cmp.Diff(active, found); d != "" {
		t.Errorf("active grants: %s", d)
	}
	counts, err := s.CountGrants(ctx, sub.ID)
	must(t, err)
	if d := cmp.Diff(map[grant.State]int{grant.Active: 4, grant.Manual: 1, grant.Revoked: 1, grant.Revoking: 1, grant.Intent: 1}, counts); d != "" {
		t.Errorf("counts: %s", d)
	}
	live, err := s.LiveGrants(ctx, sub.ID, now, 10)
	if err != nil || len(live) != 5 {
		t.Errorf("%d live grants, %v", len(live), err)
	}
	dueRecalls(t, s, sub)
}

func dueRecalls(t *testing.T, s *store.Store, sub subject.Subject) {
	t.Helper()
	ctx, now := context.Background(), sub.Recall
	due, err := s.SubjectsToRecall(ctx, now, 10)
	if err != nil || len(due) != 1 || due[0].ID != sub.ID {
		t.Errorf("due: %v, %v", due, err)
	}
	if due, err = s.SubjectsToRecall(ctx, now.Add(-time.Second), 10); err != nil || len(due) != 0 {
		t.Errorf("due before its time: %v, %v", due, err)
	}
}
