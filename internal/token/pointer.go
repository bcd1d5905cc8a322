package token

import (
	"strconv"
	"strings"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/seal"
)

// teeKey finds the TEE key at the first pointer that leads to anything.
func (t *Trust) teeKey(claims map[string]any) (seal.PublicKey, error) {
	for _, path := range t.pointers {
		v, ok := follow(claims, path)
		if !ok {
			continue
		}
		members, _ := v.(map[string]any) // anything else is a key without members
		key, err := seal.KeyOf(members)
		if err != nil {
			return seal.PublicKey{}, fault.Unauthenticatedf("the attestation token's TEE key cannot be used: %s", fault.Public(err)).Because(err)
		}
		return key, nil
	}
	return seal.PublicKey{}, fault.Unauthenticatedf("the attestation token holds no TEE key")
}

// pointer reads a JSON pointer (RFC 6901).
func pointer(s string) ([]string, bool) {
	if len(s) > 512 || !strings.HasPrefix(s, "/") {
		return nil, false
	}
	parts := strings.Split(s[1:], "/")
	for i, p := range parts {
		rest := strings.NewReplacer("~0", "", "~1", "").Replace(p)
		if strings.Contains(rest, "~") {
			return nil, false
		}
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}
	return parts, true
}

func follow(v any, path []string) (any, bool) {
	for _, p := range path {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[p]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(at) || strconv.Itoa(i) != p {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, v != nil
}
