package external

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
)

func floors(list ...string) *manifest.KBS {
	k := &manifest.KBS{}
	for _, f := range list { // path methods floor
		p := strings.Fields(f)
		r := manifest.KBSRoute{Path: strings.Trim(p[0], "/"), Floor: p[2]}
		if p[1] != "*" {
			r.Methods = strings.Split(p[1], ",")
		}
		k.Routes = append(k.Routes, r)
	}
	return k
}

func TestRules_SayWhoMustHavePassed(t *testing.T) {
	admin, guest, both, nobody := Needs{Admin: true}, Needs{Guest: true}, Needs{Admin: true, Guest: true}, Needs{}
	for name, c := range map[string]struct {
		declared, configured *manifest.KBS
		method, path         string
		no, yes              Needs // for what ValidateAuth answers
	}{
		"nothing declared, as Trustee":         {nil, nil, "GET", "a", guest, admin},
		"a route that does not fit":            {floors("b * admin"), nil, "GET", "a", guest, admin},
		"a path is whole segments":             {floors("mod * admin"), nil, "GET", "models", guest, admin},
		"a path begins the path":               {floors("models * admin"), nil, "GET", "models/x", admin, admin},
		"public, for the declared method":      {floors("/ GET public"), nil, "GET", "", nobody, admin},
		"public, for another method":           {floors("/ GET public"), nil, "PUT", "", guest, admin},
		"attested: seed 1's reading of GET":    {floors("/ GET attested"), nil, "GET", "x", guest, both},
		"admin":                                {nil, floors("/ * admin"), "GET", "x", admin, admin},
		"the operator tightens the manifest":   {floors("/ * public"), floors("/ POST admin"), "POST", "x", admin, admin},
		"the operator does not loosen it":      {floors("/ * admin"), floors("/ * public"), "GET", "x", admin, admin},
		"both count":                           {floors("/ * attested"), floors("/ * admin"), "GET", "x", both, both},
		"of one list the first that fits does": {floors("open * public", "/ * admin"), nil, "GET", "open/x", nobody, admin},
	} {
		var path []string
		if c.path != "" {
			path = strings.Split(c.path, "/")
		}
		n, silent := Rules{Declared: c.declared, Configured: c.configured}.Floor(c.method, path)
		if got := n.Raise(silent, false); got != c.no {
			t.Errorf("%s: ValidateAuth false needs %+v, want %+v", name, got, c.no)
		}
		if got := n.Raise(silent, true); got != c.yes {
			t.Errorf("%s: ValidateAuth true needs %+v, want %+v", name, got, c.yes)
		}
	}
}

// Whatever a plugin answers, what is declared stays needed; and an administrator
// is needed whenever it asks for one.
func TestRules_APluginOnlyTightens(t *testing.T) {
	floor := rapid.SampledFrom([]string{manifest.FloorAdmin, manifest.FloorAttested, manifest.FloorPublic})
	list := rapid.Custom(func(t *rapid.T) *manifest.KBS {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		k := &manifest.KBS{}
		for range rapid.IntRange(0, 3).Draw(t, "routes") {
			k.Routes = append(k.Routes, manifest.KBSRoute{
				Path: rapid.SampledFrom([]string{"", "a", "a/b"}).Draw(t, "path"), Floor: floor.Draw(t, "floor"),
				Methods: rapid.SliceOfDistinct(rapid.SampledFrom(manifest.KBSMethods()), rapid.ID).Draw(t, "methods"),
			})
		}
		return k
	})
	rapid.Check(t, func(t *rapid.T) {
		r := Rules{Declared: list.Draw(t, "declared"), Configured: list.Draw(t, "configured")}
		method := rapid.SampledFrom(manifest.KBSMethods()).Draw(t, "method")
		path := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 0, 3).Draw(t, "path")
		n, silent := r.Floor(method, path)
		for _, answer := range []bool{false, true} {
			got := n.Raise(silent, answer)
			if n.Admin && !got.Admin || n.Guest && !got.Guest || answer && !got.Admin {
				t.Fatalf("floor %+v and answer %v need only %+v", n, answer, got)
			}
			if silent && got == (Needs{}) {
				t.Fatal("nothing is declared, and nobody is needed")
			}
		}
	})
}

// What a plugin that joins segments would take for another path does not reach it:
// floors and policies have judged the segments.
func TestRequest_RefusesPathsInDisguise(t *testing.T) {
	for _, s := range []string{".", "..", "admin/keys", "../admin", "a\\b", "a\x00", "a\nb", "\xff"} {
		if err := (Request{Path: []string{"public", s, "x"}}).Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := (Request{Path: []string{"a", "b c", "...", "ä%", ""}}).Check(); err != nil {
		t.Error(err)
	}
}
