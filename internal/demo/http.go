package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"castellan/internal/resource"
)

// answer is what a door said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// failure is the code and message of a refusal, in whatever shape the plane has.
func (a answer) failure() string {
	var e struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	text := string(a.body)
	if json.Unmarshal(a.body, &e) == nil {
		if e.Error.Code != "" {
			text = e.Error.Code + ": " + e.Error.Message
		} else if e.Code != "" {
			text = e.Code + ": " + e.Message
		}
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 230 {
		text = text[:230] + " ..."
	}
	return text
}

// send makes one request. body may be nil, bytes, url.Values or anything that JSON takes.
func (d *demo) send(ctx context.Context, token, method, u string, body any, header ...string) (answer, error) {
	var in io.Reader
	contentType := ""
	switch b := body.(type) {
	case nil:
	case []byte:
		in = bytes.NewReader(b)
	case url.Values:
		in, contentType = strings.NewReader(b.Encode()), "application/x-www-form-urlencoded"
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		in, contentType = bytes.NewReader(j), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, u, in)
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := d.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return answer{res.StatusCode, res.Header, b}, err
}

// arm calls Resource Manager (or another plane on the shared host) and reads
// the answer into out; a status that is not 2xx is an error.
func (d *demo) arm(ctx context.Context, who session, method, path string, body, out any) (answer, error) {
	u := d.edge.App.Site.Base() + path
	if !strings.Contains(path, "api-version=") && !strings.HasPrefix(path, "/mlflow") {
		u += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "api-version=" + resource.VersionFor(path)
	}
	a, err := d.send(ctx, who.token, method, u, body)
	if err != nil {
		return a, err
	}
	return a, read(a, method, path, out)
}

func read(a answer, method, path string, out any) error {
	if a.status/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", method, path, a.status, a.failure())
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return fmt.Errorf("%s %s: reading the answer: %w", method, path, err)
	}
	return nil
}

// wait asks again until done says that it is, or says why it never will be.
func wait(ctx context.Context, limit time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("it took longer than " + limit.String())
		}
	}
}

// put makes a resource and waits until it is there.
func (d *demo) put(ctx context.Context, who session, path string, body any) error {
	if _, err := d.arm(ctx, who, http.MethodPut, path, body, nil); err != nil {
		return err
	}
	return wait(ctx, 30*time.Second, func() (bool, error) {
		var got struct {
			Properties struct {
				State string `json:"provisioningState"`
			} `json:"properties"`
		}
		if _, err := d.arm(ctx, who, http.MethodGet, path, nil, &got); err != nil {
			return false, err
		}
		switch got.Properties.State {
		case "Failed", "Canceled":
			return false, fmt.Errorf("%s is %s", path, got.Properties.State)
		}
		return got.Properties.State == "" || got.Properties.State == "Succeeded", nil
	})
}
