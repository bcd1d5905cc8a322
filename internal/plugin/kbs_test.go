package plugin

import (
	"errors"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin/external"
)

// TestBackend_IsOnePackage upgrades a package between the lookup, by which its
// floors are known, and the call.
func TestBackend_IsOnePackage(t *testing.T) {
	place := func(h *Host, digest string) {
		h.table.Store(&table{routes: []*route{{
			row: Installed{Name: "x", Digest: digest, Offer: Offer{Roles: []string{manifest.RoleKBS}}}, pool: &pool[*instance]{},
		}}})
	}
	h := &Host{}
	place(h, "sha256:old")
	found, err := h.Backend("x")
	if err != nil {
		t.Fatal(err)
	}
	b, ok := found.(backend)
	if !ok {
		t.Fatal("another backend")
	}
	place(h, "sha256:old") // judged again, and the same
	if _, err := b.find(); err != nil {
		t.Errorf("the same package: %v", err)
	}
	place(h, "sha256:new")
	if _, err := b.find(); !errors.Is(err, external.ErrReplaced) || !fault.Is(err, fault.Unavailable) {
		t.Errorf("another package answers by the old one's floors: %v", err)
	}
}

// TestTrust_AddressesTakeNames installs and starts packages under the names of
// external plugins that others run.
func TestTrust_AddressesTakeNames(t *testing.T) {
	trust := Trust{Addresses: map[string]bool{"x": true}}
	for name, c := range map[string]struct {
		m    manifest.Manifest
		want Reason
	}{
		"the same name":     {manifest.Manifest{Name: "x", Version: "1.0.0", Roles: []string{manifest.RoleKBS}}, ReasonConflict},
		"another name":      {manifest.Manifest{Name: "y", Version: "1.0.0", Roles: []string{manifest.RoleKBS}}, ReasonOK},
		"nothing for guest": {manifest.Manifest{Name: "x", Version: "1.0.0", Roles: []string{manifest.RoleVender}}, ReasonOK},
	} {
		if err := trust.admits(c.m, "sha256:x"); ReasonOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
