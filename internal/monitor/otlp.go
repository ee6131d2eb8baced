package monitor

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	values "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resources "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/proto"
)

// otlp is a sink that takes OpenTelemetry's logs by OTLP/HTTP (1.x, protobuf).
type otlp struct {
	url     *url.URL
	headers map[string]string
	client  *http.Client
	about   *resources.Resource // the platform
}

func newOTLP(u *url.URL, headers map[string]string, t *tls.Config, host string) *otlp {
	return &otlp{
		url: u, headers: headers,
		about: &resources.Resource{Attributes: []*values.KeyValue{attribute("service.name", "castellan"), attribute("host.name", host)}},
		client: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: t, ForceAttemptHTTP2: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // it would get the headers
		},
	}
}

func attribute(key, value string) *values.KeyValue {
	return &values.KeyValue{Key: key, Value: stringValue(value)}
}

func stringValue(s string) *values.AnyValue {
	return &values.AnyValue{Value: &values.AnyValue_StringValue{StringValue: s}}
}

// request has each record as a log whose body is the record's JSON, and what one
// looks for as attributes by OpenTelemetry's names for Azure's.
func (o *otlp) request(list []Record) *collector.ExportLogsServiceRequest {
	var out []*logs.LogRecord
	for _, r := range list {
		number, name := logs.SeverityNumber_SEVERITY_NUMBER_INFO, "INFO"
		if r.Failed {
			number, name = logs.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
		}
		out = append(out, &logs.LogRecord{
			TimeUnixNano: uint64(r.Time.UnixNano()), ObservedTimeUnixNano: uint64(r.Time.UnixNano()), SeverityNumber: number, SeverityText: name, Body: stringValue(string(r.JSON)),
			Attributes: []*values.KeyValue{attribute("azure.category", r.Category), attribute("azure.operation.name", r.Operation), attribute("azure.correlation.id", r.Correlation), attribute("cloud.resource_id", r.Resource)},
		})
	}
	return &collector.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource: o.about, ScopeLogs: []*logs.ScopeLogs{{Scope: &values.InstrumentationScope{Name: "castellan.audit"}, LogRecords: out}},
	}}}
}

// mostReply is how much of a reply is read, in bytes.
const mostReply = 1 << 20

// Deliver sends the records. Any other answer than 200 is tried again, also where
// OTLP would drop the records: an audit log had better stand still and say so.
func (o *otlp) Deliver(ctx context.Context, list []Record) error {
	body, err := proto.Marshal(o.request(list))
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	for name, value := range o.headers {
		r.Header.Set(name, value)
	}
	resp, err := o.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, mostReply))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", o.url.Host, resp.Status)
	}
	var said collector.ExportLogsServiceResponse
	if err := proto.Unmarshal(reply, &said); err != nil {
		return fmt.Errorf("%s answered what is no OTLP: %w", o.url.Host, err)
	}
	if n := said.GetPartialSuccess().GetRejectedLogRecords(); n > 0 {
		return rejected{n, said.GetPartialSuccess().GetErrorMessage()}
	}
	return nil
}

// rejected says that the sink took the delivery but for n records, which by OTLP
// must not come again.
type rejected struct {
	n    int64
	said string
}

func (r rejected) Error() string {
	return fmt.Sprintf("the sink rejected %d records: %.200s", r.n, r.said)
}
