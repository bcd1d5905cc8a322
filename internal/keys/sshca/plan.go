package sshca

import "slices"

// maxBitmap is the widest bitmap, in serials. OpenSSH reads no mpint above 16384
// bits (SSHBUF_MAX_BIGNUM); with a wider one sshd would refuse every key.
const maxBitmap = 16384

// Costs in bits. A section has a byte for its kind and a length.
const (
	costSection = 8 * 5
	costSerial  = 8 * 8
	costRange   = costSection + 2*costSerial
	costBitmap  = costSection + 8*(8+4+1)
	never       = 1 << 62
)

// sectionKinds are the forms that serials can have, in the order of a step.
var sectionKinds = [3]byte{serialList, serialRange, serialBitmap}

// cell is the cheapest way to write all runs up to one, if that run stands in a
// section of a certain kind.
type cell struct {
	cost  uint64
	from  int    // index of the section kind that the run before stands in
	fresh bool   // whether a section begins with this run
	start uint64 // first serial of the section, for bitmaps
}

// step has a cell for each of sectionKinds.
type step [3]cell

func (s step) cheapest() int {
	best := 0
	for k := range s {
		if s[k].cost < s[best].cost {
			best = k
		}
	}
	return best
}

// begin opens a section with the run, after all that cost so much.
func begin(r run, cost uint64, from int) step {
	var s step
	for k := range s {
		s[k] = cell{cost: never, from: from, fresh: true, start: r.low}
	}
	s[1].cost = cost + costRange
	if width := r.high - r.low; width < maxBitmap { // one less than its serials
		s[0].cost = cost + costSection + (width+1)*costSerial
		s[2].cost = cost + costBitmap + width + 1
	}
	return s
}

// extend puts the run into the list or bitmap of the run before, where that is
// cheaper.
func (s *step) extend(r, last run, before step) {
	width, gap := r.high-r.low, r.high-last.high
	if cost := before[0].cost + (width+1)*costSerial; before[0].cost < never && width < maxBitmap && cost < s[0].cost {
		s[0] = cell{cost: cost, from: 0}
	}
	if before[2].cost < never && r.high-before[2].start < maxBitmap && before[2].cost+gap < s[2].cost {
		s[2] = cell{cost: before[2].cost + gap, from: 2, start: before[2].start}
	}
}

// plan divides runs, at least one, into sections so that their total size is
// smallest to within the rounding of bitmaps: dynamic programming over the kind
// of the section that holds the current run.
func plan(runs []run) []part {
	steps := make([]step, len(runs))
	steps[0] = begin(runs[0], 0, 0)
	for i := 1; i < len(runs); i++ {
		before := steps[i-1]
		best := before.cheapest()
		steps[i] = begin(runs[i], before[best].cost, best)
		steps[i].extend(runs[i], runs[i-1], before)
	}
	var parts []part
	kind, end := steps[len(runs)-1].cheapest(), len(runs)
	for i := len(runs) - 1; i >= 0; i-- {
		c := steps[i][kind]
		if c.fresh {
			parts = append(parts, part{kind: sectionKinds[kind], runs: runs[i:end]})
			end = i
		}
		kind = c.from
	}
	slices.Reverse(parts)
	return parts
}
