package policy

import (
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Claims are what a verified token says. Members must not change.
type Claims struct {
	// Token names the token by what it says, for example by a hash of its signed
	// text: one name always means the same members. The claims of a token with a
	// name are brought into the engine's form once, not for each request. Empty
	// for a token without a name.
	Token   string
	Members map[string]any
}

// Bounds of what is remembered of tokens, in number and in values of one.
const (
	maxTokens = 256
	maxWeight = 512
)

// tokens remembers claims in the engine's form, which evaluations share and none
// can change. Safe for concurrent use.
type tokens struct {
	mu    sync.Mutex
	known map[string]*ast.Term
	order [maxTokens]string // the oldest is overwritten
	next  int
}

// term gives claims in the engine's form, as far as they are read.
func (k *tokens) term(c Claims, r *reads) (*ast.Term, error) {
	if c.Token == "" {
		return r.term(c.Members)
	}
	k.mu.Lock()
	t := k.known[c.Token]
	k.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := r.term(c.Members)
	if err == nil && weight(t.Value) <= maxWeight {
		k.keep(c.Token, t)
	}
	return t, err
}

func (k *tokens) keep(name string, t *ast.Term) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil {
		k.known = make(map[string]*ast.Term, maxTokens)
	}
	if k.known[name] == nil {
		delete(k.known, k.order[k.next])
		k.order[k.next] = name
		k.next = (k.next + 1) % maxTokens
	}
	k.known[name] = t
}

// weight counts what has to be kept for a value.
func weight(v ast.Value) int {
	n := 1
	switch v := v.(type) {
	case ast.Object:
		v.Foreach(func(_, inner *ast.Term) { n += weight(inner.Value) })
	case *ast.Array:
		v.Foreach(func(inner *ast.Term) { n += weight(inner.Value) })
	}
	return n
}
