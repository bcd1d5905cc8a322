package cli

import (
	"context"

	"github.com/sallyport-project/sallyport/internal/attester/guest"
	"github.com/sallyport-project/sallyport/internal/attester/sample"
	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// demoTeamPolicy decides alone about the paths of one team, by what their guests
// were started with.
const demoTeamPolicy = `package policy

applies_to := "resource/demo/team"

allow if input.submods.cpu0["ear.veraison.annotated-evidence"].init_data_claims.team == "blue"
`

// demoInitData is what guests of the team were started with.
const demoInitData = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n\n[data]\nteam = \"blue\"\n"

// demoWalk lets further guests fetch the secret, each in another way that the
// protocol has.
func (d *demo) demoWalk(ctx context.Context, n *demoNotes, tap *demoTap, value string) error {
	device, err := sample.New(evidence.SampleDevice)
	if err != nil {
		return err
	}
	kem, err := seal.GenerateKEM()
	if err != nil {
		return err
	}
	var token string
	for _, walk := range []struct {
		how    string
		change func(*guest.Config)
	}{
		{"speaks version 0.2.0", func(c *guest.Config) { c.Version = evidence.V020 }},
		{"shows a device beside the CPU, and has a key of ML-KEM-768", func(c *guest.Config) { c.Devices, c.Key = []evidence.Attester{device}, kem }},
		{"brings that one's token without a handshake, as to another server that trusts these keys", func(c *guest.Config) { c.Token, c.Key = token, kem }},
	} {
		g, err := d.workload(tap, walk.change)
		if err != nil {
			return err
		}
		if g.Token == "" {
			if token, err = g.Attest(ctx); err != nil {
				return err
			}
		}
		plain, _, err := g.Resource(ctx, demoResource)
		if err != nil {
			return err
		}
		same := string(plain.Reveal()) == value
		plain.Wipe()
		if err := demoMust(same, "a guest that %s got another secret", walk.how); err != nil {
			return err
		}
		n.say("a guest that %s: opened the same secret", walk.how)
	}
	return d.demoTeam(ctx, n, tap)
}

// demoTeam binds a team's secret to what its guests were started with.
func (d *demo) demoTeam(ctx context.Context, n *demoNotes, tap *demoTap) error {
	const path = "demo/team/key"
	if _, err := d.operator.PutResource(ctx, "demo", "team", "key", []byte("for the blue team")); err != nil {
		return err
	}
	if _, err := d.operator.SetPolicy(ctx, "team", "kbs-resource", demoTeamPolicy); err != nil {
		return err
	}
	stranger, err := d.workload(tap, func(*guest.Config) {})
	if err != nil {
		return err
	}
	_, _, err = stranger.Resource(ctx, path)
	why, err := demoRefused(err, "the team's secret, without init-data,", fault.Denied)
	if err != nil {
		return err
	}
	member, err := d.workload(tap, func(c *guest.Config) { c.InitData = &evidence.InitData{Format: "toml", Body: demoInitData} })
	if err != nil {
		return err
	}
	plain, _, err := member.Resource(ctx, path)
	if err != nil {
		return err
	}
	plain.Wipe()
	n.say("a policy for demo/team/ is bound to init-data; without it: %s; with the team's: released", why)
	return nil
}
