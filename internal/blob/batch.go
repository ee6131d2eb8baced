package blob

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Limits of a batch, as Azure's.
const (
	maxBatch      = 256     // requests
	maxBatchBytes = 4 << 20 // of them all
)

// batched is one request of a batch.
type batched struct {
	id string // its Content-ID, which its answer has too
	r  *http.Request
}

// batchWhy is why the doors to batches are open.
const batchWhy = "who sends it must be somebody, and each request in it passes the gate by itself, with its own credential"

func badBatch(format string, args ...any) error {
	return fail(http.StatusBadRequest, "InvalidInput", "The batch is not valid: "+format+".", args...)
}

// readBatch reads the requests of a batch: a multipart/mixed body whose parts are
// requests without bodies.
func readBatch(contentType string, body io.Reader) (out []batched, err error) {
	typ, params, err := mime.ParseMediaType(contentType)
	if err != nil || typ != "multipart/mixed" || params["boundary"] == "" {
		return nil, badBatch("its Content-Type must be multipart/mixed with a boundary")
	}
	parts := multipart.NewReader(body, params["boundary"])
	for {
		part, err := parts.NextRawPart()
		switch {
		case errors.Is(err, io.EOF) && len(out) > 0:
			return out, nil
		case err != nil:
			return nil, badBatch("its parts can't be read to their end, or there are none")
		case len(out) == maxBatch:
			return nil, badBatch("it has more than %d requests", maxBatch)
		}
		if t := part.Header.Get("Content-Type"); !strings.EqualFold(t, "application/http") {
			return nil, badBatch("a part is of the type %q; it must be application/http", t)
		}
		// The SDK for JavaScript leaves the empty line after the headers to the boundary.
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(part, strings.NewReader("\r\n\r\n"))))
		if err != nil || r.ContentLength > 0 || len(r.TransferEncoding) > 0 || !strings.HasPrefix(r.RequestURI, "/") {
			return nil, badBatch("a part must be a request without a body, for a path of this account")
		}
		out = append(out, batched{part.Header.Get("Content-ID"), r})
	}
}

// batch is Blob Batch. All of it is read, and refused as a whole, before the first
// request is carried out.
func (s *Service) batch(p *gate.Plane) func(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
	return func(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
		who, err := s.who(p, r)
		if err != nil {
			return err
		}
		if _, err := s.pass(w, r, who); err != nil {
			return err
		}
		if r.ContentLength < 0 || r.ContentLength > maxBatchBytes {
			return fail(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "A batch must say its length, which is at most %d bytes.", maxBatchBytes)
		}
		list, err := readBatch(r.Header.Get("Content-Type"), http.MaxBytesReader(w, r.Body, maxBatchBytes))
		if err != nil {
			return err
		}
		doors := make([]func(http.ResponseWriter), len(list))
		for i, b := range list {
			if doors[i], err = s.batchDoor(p, r, b.r, v["container"]); err != nil {
				return err
			}
		}
		boundary := "batchresponse_" + arm.NewUUID()
		var out bytes.Buffer
		for i, b := range list {
			rec := &recorder{header: http.Header{}}
			doors[i](rec)
			fmt.Fprintf(&out, "--%s\r\nContent-Type: application/http\r\n", boundary)
			if b.id != "" && !strings.ContainsAny(b.id, "\r\n") {
				fmt.Fprintf(&out, "Content-ID: %s\r\n", b.id)
			}
			rec.writeTo(&out)
		}
		fmt.Fprintf(&out, "--%s--\r\n", boundary)
		exchange{w: w, r: r, s: s}.identify()
		w.Header().Set("Content-Type", "multipart/mixed; boundary="+boundary)
		w.Header().Set("Content-Length", fmt.Sprint(out.Len()))
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(out.Bytes()) // the client may have gone
		return nil
	}
}

// batchDoor is the door of one request of a batch: to delete a blob or to set its
// tier, on the host of the batch, in its container if it has one.
func (s *Service) batchDoor(p *gate.Plane, outer, r *http.Request, container string) (func(http.ResponseWriter), error) {
	in := r.WithContext(outer.Context())
	in.Host, in.TLS, in.RemoteAddr, in.Body = outer.Host, outer.TLS, outer.RemoteAddr, http.NoBody
	rt, v, _, err := p.Find(in)
	door := doorOf(in)
	may := in.Method == http.MethodDelete && (door == "" || door == "versionid") || in.Method == http.MethodPut && door == "comp=tier"
	if err != nil || rt.Method == "" || v["blob"] == "" || !may {
		return nil, badBatch("it has a request for %s %.100q; a batch deletes blobs and sets their tiers", in.Method, in.URL.Path)
	}
	if container != "" && v["container"] != container {
		return nil, badBatch("it has a request for the container %.63q; it is for %q alone", v["container"], container)
	}
	return func(w http.ResponseWriter) { s.Gate.Serve(p, rt, v, w, in) }, nil
}

// recorder keeps the answer of one request of a batch.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) writeTo(w *bytes.Buffer) {
	fmt.Fprintf(w, "\r\nHTTP/1.1 %d %s\r\n", r.status, http.StatusText(r.status))
	r.header.Set("Content-Length", fmt.Sprint(r.body.Len()))
	_ = r.header.Write(w) // a buffer takes all
	fmt.Fprintf(w, "\r\n%s\r\n", r.body.String())
}
