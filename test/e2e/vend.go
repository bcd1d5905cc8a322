package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Answer is what came of one request for a credential by plain HTTP, without
// the repetitions of the SDK.
type Answer struct {
	Status   int
	Grant    string
	Value    string
	Replayed bool
	Body     string
}

// vendBody asks for what the example policy allows.
const vendBody = `{"kind":"ssh-user-cert","params":{"principals":["deploy"],"source_addresses":["127.0.0.1/32"]},"ttl_seconds":600}`

// Vend asks for a certificate once. An error means that there was no whole
// answer.
func (s *Server) Vend(client *http.Client, token, key string) (Answer, error) {
	a, err := s.Post(client, "/v1/credentials", vendBody, token, key)
	if err != nil || a.Status != http.StatusCreated && a.Status != http.StatusOK {
		return a, err
	}
	var out struct {
		Grant    string `json:"grant"`
		Value    string `json:"value"`
		Replayed bool   `json:"replayed"`
	}
	if err := json.Unmarshal([]byte(a.Body), &out); err != nil || out.Grant == "" || out.Value == "" {
		return a, errors.Join(fmt.Errorf("the answer %d is no credential", a.Status), err)
	}
	a.Grant, a.Value, a.Replayed = out.Grant, out.Value, out.Replayed
	return a, nil
}

// Post sends JSON once with a session token.
func (s *Server) Post(client *http.Client, path, body, token, key string) (Answer, error) {
	req, err := http.NewRequest(http.MethodPost, "https://"+s.Main+path, strings.NewReader(body)) //nolint:noctx // the client has a timeout
	if err != nil {
		return Answer{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := client.Do(req)
	if err != nil {
		return Answer{}, fmt.Errorf("post %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	return Answer{Status: res.StatusCode, Body: string(text)}, nil
}
