package conformance

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// A package without a vender is checked for the roles that it has, and each wrong
// is found by the check for it.
func TestRun_RolesBesideAVender(t *testing.T) {
	program := compile(t, "./testdata/rogue")
	for name, want := range map[string]string{
		"beside-honest": "", "beside-forgets": "revoker/again", "beside-hangs": "revoker/calls", "beside-mute": "notifier/calls",
		"beside-gullible": "verifier/refuses", "beside-panics": "verifier/calls",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := rogue(name)
			m.Roles, m.Evidence = []string{manifest.RoleRevoker, manifest.RoleNotifier, manifest.RoleVerifier}, []string{"rogue-tee"}
			m.Params, m.Config = nil, nil
			m.Effects, m.Revocation.Needs = manifest.EffectsRemote, manifest.NeedsHandle
			c := Config{Package: pack(t, m, program)}
			if name == "beside-hangs" || name == "beside-mute" {
				c.Calls = 500 * time.Millisecond
			}
			r, err := Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"revoker/calls", "revoker/again", "notifier/calls", "verifier/calls", "verifier/refuses"} {
				i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.ID == id })
				if i < 0 || (r.Checks[i].Result == Fail) != (id == want) {
					t.Errorf("%s: %+v", id, r.Checks)
				}
			}
			if r.OK != (want == "") {
				t.Errorf("OK is %v: %+v", r.OK, r.Checks)
			}
		})
	}
}

// A package that makes nothing and has no kinds at all is checked to its end.
func TestRun_NotifierAlone(t *testing.T) {
	m := rogue("beside-alone")
	m.Roles, m.Kinds, m.Params, m.Config = []string{manifest.RoleNotifier}, nil, nil, nil
	r, err := Run(t.Context(), Config{Package: pack(t, m, compile(t, "./testdata/rogue"))})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.Result == Fail && c.ID != "package/signature" {
			t.Errorf("%s: %s", c.ID, c.Reason)
		}
	}
	if !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.ID == "notifier/calls" && c.Result == Pass }) {
		t.Error("it was not told")
	}
}
