package plugin

// Judging is what was decided about whom to trust, as it is stored. Rows that are
// damaged are left out, and named: what they said is not known, and counts as the
// worst that it may have been, for what they were about and for nothing else.
type Judging struct {
	Publishers []Publisher
	Keys       []Key // in whatever state
	Floors     []Floor
	Damaged    Damaged
}

// Damaged names rows by the ids that they bear. An id is no proof: whoever can
// write it can delete the row.
type Damaged struct {
	Publishers map[string]bool // whose packages must not run: nobody knows how many must sign
	Keys       map[string]bool // which count for nothing
	Floors     map[string]bool // packages of which no version may run
}

// publisher refuses packages of a publisher whose row is damaged.
func (d Damaged) publisher(name string) error {
	if !d.Publishers[name] {
		return nil
	}
	return refuse(ReasonDamaged, "what this server knows of publisher %s is damaged, so that nothing of it runs; restore the database from a backup", name)
}

// floor refuses a package whose lowest version cannot be read.
func (d Damaged) floor(name string) error {
	if !d.Floors[name] {
		return nil
	}
	return refuse(ReasonDamaged, "the lowest version of package %s that is secure cannot be read, so that none runs; restore the database from a backup", name)
}

// signer is a key that would have counted perhaps, empty if none of those who say
// that they signed is damaged.
func (d Damaged) signer(ids []string) string {
	for _, id := range ids {
		if d.Keys[id] {
			return id
		}
	}
	return ""
}
