package flow

import (
	"context"
	"sort"
	"strconv"
	"sync"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/unit"
)

// Refusals of callers whom nobody knows are counted per address and recorded
// per interval, so that a flood of them fills neither disk nor ledger.

// mostAddresses bounds the memory of the count; what comes from further
// addresses is counted together under "other".
const mostAddresses = 4096

type strangers struct {
	mu       sync.Mutex
	counts   map[string]int64
	evidence int // refused attestations that were recorded one by one in this interval
}

// mostEvidence is how many refused attestations have a record of their own in
// one interval; of the others the count per address stands for them.
const mostEvidence = 64

// ofEvidence reports whether a refused attestation may still be recorded by
// itself.
func (s *strangers) ofEvidence() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evidence++
	return s.evidence <= mostEvidence
}

func newStrangers() *strangers { return &strangers{counts: map[string]int64{}} }

func (s *strangers) add(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more(address, 1)
}

func (s *strangers) more(address string, n int64) {
	if _, known := s.counts[address]; !known && len(s.counts) >= mostAddresses {
		address = "other"
	}
	s.counts[address] += n
}

func (s *strangers) take() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.counts
	s.counts, s.evidence = map[string]int64{}, 0
	return counts
}

func (s *strangers) back(counts map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for address, n := range counts {
		s.more(address, n)
	}
}

// addressesPerRecord keeps a record well below the size that the ledger takes.
const addressesPerRecord = 128

// RecordStrangers writes what was counted since the last call. When the ledger
// does not take it, the counts are kept for the next time.
func (g *Gate) RecordStrangers(ctx context.Context) error {
	counts := g.strangers.take()
	addresses := make([]string, 0, len(counts))
	for address := range counts {
		addresses = append(addresses, address)
	}
	sort.Strings(addresses)
	for len(addresses) > 0 {
		n := min(len(addresses), addressesPerRecord)
		data := make(map[string]string, n)
		for _, address := range addresses[:n] {
			data[address] = strconv.FormatInt(counts[address], 10)
		}
		err := g.commit(ctx, unit.Unit{Record: audit.Record{
			Type: "stranger.refused", Outcome: audit.Denied,
			Actor: audit.Actor{Kind: "stranger"}, Data: data,
		}})
		if err != nil {
			g.strangers.back(counts)
			return err
		}
		for address := range data {
			delete(counts, address)
		}
		addresses = addresses[n:]
	}
	return nil
}
