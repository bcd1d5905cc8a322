package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/url"
	"testing"

	"github.com/sallyport-project/sallyport/internal/plugin"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// rotation is a publisher's statement that introduces a second key beside its
// present one, and the second key's id.
func rotation(t testing.TB, publisher string, present ed25519.PrivateKey) (statement, second string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	keys := []plugin.RotationKey{{Public: present.Public().(ed25519.PublicKey)}, {Public: public}}
	text, err := plugin.NewRotation(plugin.Rotation{Publisher: publisher, Serial: 1, Keys: keys})
	must(t, err)
	for _, key := range []ed25519.PrivateKey{present, private} {
		text, err = plugin.SignRotation(text, key)
		must(t, err)
	}
	return string(text), plugin.KeyID(public)
}

// rotationOfNobody is a statement of a publisher that no server knows.
func rotationOfNobody(t testing.TB) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	text, _ := rotation(t, "nobody", private)
	return text
}

// bareInstallation is the path by which an executable is installed that AgentKMS
// has signed. Its key is trusted for that.
func (s *stage) bareInstallation(executable string) string {
	s.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(s.t, err)
	der, err := x509.MarshalPKIXPublicKey(public)
	must(s.t, err)
	_, err = s.admin.TrustPublisher(s.t.Context(), sallyport.TrustRequest{
		Publisher: "old", Use: "agentkms", Names: []string{"bare"}, PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	})
	must(s.t, err)
	return "/v1/plugins/agentkms?" + url.Values{
		"name": {"bare"}, "publisher": {"old"}, "kind": {"bare-token"}, "roles": {"credential-vender,scope-validator"},
		"signature": {base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(executable)))},
	}.Encode()
}
