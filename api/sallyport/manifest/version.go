package manifest

import "strings"

// ValidVersion reports whether s is a semantic version (semver 2.0.0), without a
// leading v and at most 64 bytes long.
func ValidVersion(s string) bool { return len(s) <= 64 && semver.MatchString(s) }

// CompareVersions orders two valid semantic versions by semver 2.0.0 section 11:
// negative if a comes before b, 0 if they have the same precedence (what follows
// a plus sign does not count), positive if a comes after b.
func CompareVersions(a, b string) int {
	a, _, _ = strings.Cut(a, "+")
	b, _, _ = strings.Cut(b, "+")
	coreA, preA, _ := strings.Cut(a, "-")
	coreB, preB, _ := strings.Cut(b, "-")
	if c := compareIdentifiers(coreA, coreB); c != 0 {
		return c
	}
	switch {
	case preA == preB:
		return 0
	case preA == "":
		return 1
	case preB == "":
		return -1
	}
	return compareIdentifiers(preA, preB)
}

// compareIdentifiers compares lists of identifiers between dots: numbers by
// value and before words, words by bytes, a list after its own beginning.
func compareIdentifiers(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		numX, numY := number(x[i]), number(y[i])
		switch {
		case x[i] == y[i]:
			continue
		case numX != numY:
			if numX {
				return -1
			}
			return 1
		case numX && len(x[i]) != len(y[i]): // no leading zeros: longer is larger
			return len(x[i]) - len(y[i])
		}
		return strings.Compare(x[i], y[i])
	}
	return len(x) - len(y)
}

func number(s string) bool { return strings.Trim(s, "0123456789") == "" }
