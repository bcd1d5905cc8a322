package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func newStatus(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "How the server does, and what weakens it", Args: cobra.NoArgs,
		Long: `Show how the server does: whether it is ready, the length of its ledger, its
plugins, reference material that has expired or soon does, rows of the database that
somebody altered, and every switch that weakens. Operators may ask.`,
		Example: "  sallyport status\n  sallyport status --output json",
		RunE: func(c *cobra.Command, _ []string) error {
			return s.calling(c.Context(), func(client *sallyport.Client) error {
				status, err := client.Status(c.Context())
				if err != nil {
					return err
				}
				return s.print(status, func() error { return s.facts(statusFacts(status)...) })
			})
		},
	}
}

func statusFacts(status sallyport.Status) []string {
	ready := "yes"
	if !status.Ready {
		ready = "no"
	}
	running := 0
	for _, p := range status.Plugins {
		if p.Reason == "OK" {
			running++
		}
	}
	pairs := []string{
		"version", status.Version, "storage", status.Storage, "ready", ready, "records", strconv.FormatUint(status.Ledger.Size, 10),
		"plugins", strconv.Itoa(running) + " of " + strconv.Itoa(len(status.Plugins)) + " as they must be",
	}
	for _, t := range status.Trouble {
		pairs = append(pairs, "trouble", t)
	}
	if status.BrokenRows > 0 {
		pairs = append(pairs, "damaged", strconv.FormatInt(status.BrokenRows, 10)+" rows of the database were altered by something else than the server; its log names them")
	}
	for _, r := range status.Reference {
		pairs = append(pairs, "reference", r)
	}
	for _, w := range status.Weak {
		pairs = append(pairs, "weakened", w)
	}
	return pairs
}
