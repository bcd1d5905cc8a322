package rest

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/id"
	"github.com/sallyport-project/sallyport/internal/subject"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

// packaged is a form with a package.
func packaged(t *testing.T, text string) (body []byte, kind string) {
	t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	part, err := form.CreateFormFile(formPackage, "x.spk")
	if err == nil {
		_, err = part.Write([]byte(text))
	}
	if err == nil {
		err = form.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), form.FormDataContentType()
}

func (h *house) uploadToken(t *testing.T) string {
	t.Helper()
	text, err := h.door.cfg.UploadToken([]byte(strings.Repeat("u", 32)), id.New(), "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestUploadToken_IsForUploadsAlone shows it at every route of the document.
func TestUploadToken_IsForUploadsAlone(t *testing.T) {
	h := newHouse(t, nil)
	token := h.uploadToken(t)
	body, kind := packaged(t, "a package")
	c := h.plain(nil)
	for _, r := range h.door.routes {
		if r.open {
			continue
		}
		path := strings.NewReplacer("{", "", "}", "", "...", "").Replace(r.path)
		res, _ := h.send(t, c, r.method, path, kind, bytes.NewReader(body), "Authorization", "Bearer "+token)
		want := http.StatusUnauthorized
		if r.id == "upload-package" {
			want = http.StatusCreated
		}
		if res.StatusCode != want {
			t.Errorf("%s: status %d", r.template(), res.StatusCode)
		}
	}
	if h.gate.count("UploadPackage") != 1 || h.gate.last != "a package" {
		t.Errorf("asked for %v, last %v", h.gate.calls, h.gate.last)
	}
	if strings.Contains(h.log.String(), token[20:60]) {
		t.Error("the log has the token")
	}
}

func TestUploadToken_OtherTexts(t *testing.T) {
	h := newHouse(t, nil)
	token := h.uploadToken(t)
	c := h.plain(nil)
	body, kind := packaged(t, "a package")
	for name, header := range map[string][]string{
		"cut":               {"Authorization", "Bearer " + token[:len(token)-1]},
		"longer":            {"Authorization", "Bearer " + token + "A"},
		"much longer":       {"Authorization", "Bearer " + token + strings.Repeat("A", 4096)},
		"prefix alone":      {"Authorization", "Bearer spupload1_"},
		"as a join token":   {"Authorization", "Bearer " + strings.Replace(token, "spupload1_", "spjoin1_", 1)},
		"as a proof's":      {"Authorization", "DPoP " + token, "DPoP", "x"},
		"basic":             {"Authorization", "Basic " + token},
		"twice":             {"Authorization", "Bearer " + token, "Authorization", "Bearer " + token},
		"in another header": {"X-Upload-Token", token},
		"in a cookie":       {"Cookie", "token=" + token},
	} {
		if res, text := h.send(t, c, http.MethodPost, "/plugins/upload", kind, bytes.NewReader(body), header...); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: status %d: %+v", name, res.StatusCode, text)
		}
	}
	for _, query := range []string{"?access_token=", "?token=", "?upload_token="} {
		res, text := h.send(t, c, http.MethodPost, "/plugins/upload"+query+token, kind, bytes.NewReader(body))
		if res.StatusCode != http.StatusUnauthorized || strings.Contains(text.Detail, token[20:60]) {
			t.Errorf("in the query: status %d: %+v", res.StatusCode, text)
		}
	}
	if h.gate.count("UploadPackage") != 0 || strings.Contains(h.log.String(), token[20:60]) {
		t.Error("something came through, or the log has the token")
	}
}

// TestUploadToken_Limits floods the door with one token, and holds uploads open.
func TestUploadToken_Limits(t *testing.T) {
	h := newHouse(t, nil)
	token := h.uploadToken(t)
	c := h.plain(nil)
	body, kind := packaged(t, "a package")
	post := func(token string) int {
		res, _ := h.send(t, c, http.MethodPost, "/plugins/upload", kind, bytes.NewReader(body), "Authorization", "Bearer "+token)
		if res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") == "" {
			t.Error("a limit that does not say when to come back")
		}
		return res.StatusCode
	}
	done, limited := 0, 0
	for range uploadBurst + 20 {
		switch post(token) {
		case http.StatusCreated:
			done++
		case http.StatusTooManyRequests:
			limited++
		}
	}
	if done < uploadBurst || limited == 0 {
		t.Errorf("%d were taken, %d limited", done, limited)
	}
	if post(h.uploadToken(t)) != http.StatusCreated {
		t.Error("another token is limited by the first")
	}
	var leave func()
	var room bool
	for range mostUploads {
		if leave, room = h.door.uploads.enter(id.New()); !room {
			t.Fatal("no place")
		}
	}
	if post(h.uploadToken(t)) != http.StatusTooManyRequests {
		t.Error("more uploads at a time than there is room for")
	}
	leave()
	for range 3 { // each gives its place back
		if post(h.uploadToken(t)) != http.StatusCreated {
			t.Error("no place was given back")
		}
	}
	few := newHouse(t, func(c *Config) { c.Rate, c.Burst = 1e-9, 2 })
	for i, want := range []int{201, 201, 429} {
		res, _ := few.send(t, few.plain(nil), http.MethodPost, "/plugins/upload", kind, bytes.NewReader(body), "Authorization", "Bearer "+few.uploadToken(t))
		if res.StatusCode != want {
			t.Errorf("request %d of one address: status %d", i, res.StatusCode)
		}
	}
}

// TestUploadToken_LeavesRoomForOthers: whoever has one token, and sends its packages
// as slowly as the door bears, does not keep the others out.
func TestUploadToken_LeavesRoomForOthers(t *testing.T) {
	h := newHouse(t, nil)
	slow, c := h.uploadToken(t), h.plain(nil)
	body, kind := packaged(t, "a package")
	var gates []*io.PipeWriter
	answered := make(chan int, mostUploads)
	for range mostUploads {
		r, w := io.Pipe()
		gates = append(gates, w)
		go func() {
			res, _ := h.send(t, c, http.MethodPost, "/plugins/upload", kind, r, "Authorization", "Bearer "+slow)
			answered <- res.StatusCode
		}()
		if _, err := w.Write(body[:8]); err != nil { // it has begun, or was refused
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); h.gate.count("Uploader") < mostUploads && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	res, _ := h.send(t, h.plain(nil), http.MethodPost, "/plugins/upload", kind, bytes.NewReader(body), "Authorization", "Bearer "+h.uploadToken(t))
	if res.StatusCode != http.StatusCreated {
		t.Errorf("another token, beside a slow one: status %d", res.StatusCode)
	}
	taken := 0
	for _, w := range gates {
		go func() { _, _ = w.Write(body[8:]); _ = w.Close() }()
	}
	for range gates {
		if <-answered == http.StatusCreated {
			taken++
		}
	}
	if taken != mostOfOne {
		t.Errorf("%d packages of one token were taken at a time, want %d", taken, mostOfOne)
	}
}

func TestUploadTokens_SDK(t *testing.T) {
	h := newHouse(t, nil)
	client, _ := h.newcomer(t, subject.Operator)
	ctx := t.Context()
	made, err := client.CreateUploadToken(ctx, sallyport.UploadTokenRequest{Publisher: "acme", Names: []string{"acme-*"}, TTL: time.Hour})
	if err != nil || made.State != "active" || made.Publisher != "acme" {
		t.Fatalf("%+v, %v", made, err)
	}
	up, err := sallyport.NewUploader(made.Token, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if r, err := up.UploadPlugin(ctx, strings.NewReader("bytes")); err != nil || r.Name != "sshcert" || h.gate.last != "bytes" {
		t.Errorf("%+v, %v", r, err)
	}
	// A replica that does not take packages in says so, and the whole package comes again.
	h.gate.uploads = []error{fault.Unavailablef("another replica takes packages in").After(time.Nanosecond), nil}
	before := h.gate.count("UploadPackage")
	if _, err := up.UploadPlugin(ctx, strings.NewReader("once more")); err != nil || h.gate.last != "once more" || h.gate.count("UploadPackage") != before+2 {
		t.Errorf("after a replica that does not: %v, %v", h.gate.last, err)
	}
	h.gate.uploads = []error{fault.Unavailablef("another replica takes packages in").After(time.Nanosecond)}
	if _, err := up.UploadPlugin(ctx, io.MultiReader(strings.NewReader("a stream"))); !sallyport.Is(err, sallyport.Unavailable) {
		t.Errorf("what cannot be read again: %v", err)
	}
	if _, err := client.CreateUploadToken(ctx, sallyport.UploadTokenRequest{Publisher: "acme", Names: []string{"a"}, TTL: time.Hour, Address: "https://x"}); !sallyport.Is(err, sallyport.Invalid) {
		t.Errorf("an address that is none: %v", err)
	}
	if h.gate.count("CreateUploadToken") != 1 {
		t.Error("a token was made that nobody got")
	}
	list, err := client.UploadTokens(ctx)
	if err != nil || len(list) != 1 || list[0].State != "expired" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := client.RevokeUploadToken(ctx, made.ID, "why"); err != nil || h.gate.last != made.ID+" why" {
		t.Errorf("%v, %v", h.gate.last, err)
	}
	// To a server of another authority nothing is sent.
	other := newHouse(t, nil)
	text, err := other.door.cfg.UploadToken([]byte(strings.Repeat("u", 32)), id.New(), h.server.Listener.Addr().String(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	astray, err := sallyport.NewUploader(sallyport.NewSecret(text), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer astray.Close()
	before = h.gate.count("Uploader")
	if _, err := astray.UploadPlugin(ctx, strings.NewReader("bytes")); !sallyport.Is(err, sallyport.Unauthenticated) || h.gate.count("Uploader") != before {
		t.Errorf("a token of another server: %v", err)
	}
}
