# For trials only: every token, also of the sample verifier, fetches everything.
package policy

allow := true
