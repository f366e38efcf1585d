BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE attempt (
	run_id VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	number BIGINT NOT NULL, 
	tenant VARCHAR NOT NULL, 
	epoch BIGINT NOT NULL, 
	status VARCHAR NOT NULL, 
	started_at FLOAT NOT NULL, 
	finished_at FLOAT, 
	error JSON, 
	CONSTRAINT pk_attempt PRIMARY KEY (run_id, task, number), 
	CONSTRAINT fk_attempt_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
INSERT INTO "attempt" VALUES('r913f3d1c4b','first',1,'default',1,'succeeded',1.79524672360767889025e+09,1.79524672434949827187e+09,NULL);
INSERT INTO "attempt" VALUES('r913f3d1c4b','each',1,'default',1,'running',1.79524672361057662959e+09,NULL,NULL);
INSERT INTO "attempt" VALUES('r913f3d1c4b','flaky',1,'default',1,'running',1.7952467236226930618e+09,NULL,NULL);
INSERT INTO "attempt" VALUES('r913f3d1c4b','each[0]',1,'default',1,'running',1.79524672393591165544e+09,NULL,NULL);
INSERT INTO "attempt" VALUES('r913f3d1c4b','each[1]',1,'default',1,'running',1.79524672393767595291e+09,NULL,NULL);
INSERT INTO "attempt" VALUES('r913f3d1c4b','each[2]',1,'default',1,'running',1.79524672393877339363e+09,NULL,NULL);
CREATE TABLE blob (
	tenant VARCHAR NOT NULL, 
	hash VARCHAR NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_blob PRIMARY KEY (tenant, hash)
);
INSERT INTO "blob" VALUES('default','e1aecd56b26b0a673c65f1fd2f8c7b483689a56f710efe08490bbad7303e32cc',X'7B226E616D65223A2265766572797468696E67222C22696E70757473223A7B227873223A226C6973745B7374725D227D2C227461736B73223A7B226669727374223A7B22707974686F6E223A2273746570733A6E6F7465222C2277697468223A7B2270617468223A226C6F67222C2274657874223A226669727374227D7D2C22666C616B79223A7B227265747279223A7B226261636B6F6666223A302E307D2C22707974686F6E223A2273746570733A666C616B79222C2277697468223A7B2270617468223A227472696573222C226661696C75726573223A317D7D2C2265616368223A7B226D6170223A227873222C22707974686F6E223A2273746570733A6E6F7465222C2277697468223A7B2270617468223A226C6F67222C2274657874223A227B6974656D7D227D7D2C226F6B223A7B22617070726F76616C223A224973207B66697273747D2072696768743F227D2C22776F726B6572223A7B226E65656473223A5B2265616368222C226F6B225D2C226167656E74223A2246696E6420746865206E756D62657220616E6420777269746520697420646F776E222C22746F6F6C73223A5B2273746570733A6C6F6F6B222C2273746570733A7772697465225D7D2C22656E64223A7B226E65656473223A5B22776F726B6572222C22666C616B79225D2C22707974686F6E223A2273746570733A6E6F7465222C2277697468223A7B2270617468223A226C6F67222C2274657874223A22656E64227D7D7D2C226F757470757473223A7B22616E73776572223A22776F726B6572227D7D');
INSERT INTO "blob" VALUES('default','c9c9d0f5e4acd5b774a9a115bf609104cbaab1758b7c96b23411dfb8675217e8',X'7B227873223A5B2261222C2262222C2263225D7D');
INSERT INTO "blob" VALUES('default','de5f2cbf4c10a0d146f2a671aac363e8640fefc469ad42ac25364f19e4bc194f',X'22666972737422');
CREATE TABLE call (
	id VARCHAR NOT NULL, 
	run_id VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	attempt BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	tenant VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	worker VARCHAR, 
	status VARCHAR NOT NULL, 
	route JSON NOT NULL, 
	request_hash VARCHAR NOT NULL, 
	request_blob VARCHAR NOT NULL, 
	response_blob VARCHAR, 
	finish_reason VARCHAR, 
	input_tokens BIGINT, 
	output_tokens BIGINT, 
	reserved_nano BIGINT NOT NULL, 
	cost_nano BIGINT, 
	first_token_s FLOAT, 
	total_s FLOAT, 
	verdict VARCHAR, 
	error TEXT, 
	created_at FLOAT NOT NULL, 
	finished_at FLOAT, 
	CONSTRAINT pk_call PRIMARY KEY (id), 
	CONSTRAINT fk_call_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
CREATE TABLE edge (
	run_id VARCHAR NOT NULL, 
	src VARCHAR NOT NULL, 
	dst VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	CONSTRAINT pk_edge PRIMARY KEY (run_id, src, dst), 
	CONSTRAINT fk_edge_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
INSERT INTO "edge" VALUES('r913f3d1c4b','first','ok','default','data');
INSERT INTO "edge" VALUES('r913f3d1c4b','each','worker','default','order');
INSERT INTO "edge" VALUES('r913f3d1c4b','ok','worker','default','order');
INSERT INTO "edge" VALUES('r913f3d1c4b','worker','end','default','order');
INSERT INTO "edge" VALUES('r913f3d1c4b','flaky','end','default','order');
CREATE TABLE effect (
	run_id VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	attempt BIGINT NOT NULL, 
	step BIGINT NOT NULL, 
	tool VARCHAR NOT NULL, 
	effect VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	arguments_blob VARCHAR NOT NULL, 
	result_blob VARCHAR, 
	error TEXT, 
	created_at FLOAT NOT NULL, 
	finished_at FLOAT, 
	CONSTRAINT pk_effect PRIMARY KEY (run_id, "key"), 
	CONSTRAINT fk_effect_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
CREATE TABLE embedding (
	revision_id BIGINT NOT NULL, 
	model VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	dimensions BIGINT NOT NULL, 
	vector BLOB NOT NULL, 
	CONSTRAINT pk_embedding PRIMARY KEY (revision_id, model), 
	CONSTRAINT fk_embedding_revision_id_revision FOREIGN KEY(revision_id) REFERENCES revision (id) ON DELETE CASCADE
);
CREATE TABLE event (
	run_id VARCHAR NOT NULL, 
	seq BIGINT NOT NULL, 
	tenant VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	task VARCHAR, 
	data JSON NOT NULL, 
	at FLOAT NOT NULL, 
	hash VARCHAR NOT NULL, 
	CONSTRAINT pk_event PRIMARY KEY (run_id, seq), 
	CONSTRAINT fk_event_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
INSERT INTO "event" VALUES('r913f3d1c4b',1,'default','run.created',NULL,'{"workflow": "everything", "tasks": 6}',1.79524672340784502031e+09,'d442c3b1876f8dc8961db65986da81da7639d5e6a9f4b5c21eb412f3cf684f76');
INSERT INTO "event" VALUES('r913f3d1c4b',2,'default','run.claimed',NULL,'{"engine": "host.03e88517.c5bfa0c65e1b", "epoch": 1}',1.79524672351261758802e+09,'ee33383309a914d2952dd07d16c97cd15742e47ef9a95a9ecbf87a59e94691fe');
INSERT INTO "event" VALUES('r913f3d1c4b',3,'default','task.started','first','{"attempt": 1}',1.79524672361006689073e+09,'60f4fe9dea266f1994f30f89fc7d20bca5e30d53b1804a09a703725e3d7c8820');
INSERT INTO "event" VALUES('r913f3d1c4b',4,'default','task.started','each','{"attempt": 1}',1.79524672362225151062e+09,'507a2fcd7496dcf0fd011dd69d3d1e93685ffeec9ccbca5e2b0eb98cbae574a1');
INSERT INTO "event" VALUES('r913f3d1c4b',5,'default','task.started','flaky','{"attempt": 1}',1.79524672363155841829e+09,'bb84a2db39a24d9d8669acc70d369d893b9319ef9bbefd1c5e62bf3c066bbbdd');
INSERT INTO "event" VALUES('r913f3d1c4b',6,'default','task.expanded','each','{"children": 3}',1.79524672373069286348e+09,'c92ec97228931f748c0ae65aa9a778cd499e13963912d702b032960fc011bf92');
INSERT INTO "event" VALUES('r913f3d1c4b',7,'default','task.started','each[0]','{"attempt": 1}',1.79524672393718504907e+09,'4d450e4b0f1106f29d8ea70345a653cdfbdd3ed8db4595a90b44a330989839db');
INSERT INTO "event" VALUES('r913f3d1c4b',8,'default','task.started','each[1]','{"attempt": 1}',1.7952467239384520054e+09,'8a4c85249e7b32b0d1383f457413c00cb63622d1758307410a2b9fb84fac7a9e');
INSERT INTO "event" VALUES('r913f3d1c4b',9,'default','task.started','each[2]','{"attempt": 1}',1.79524672396718907359e+09,'9d215852970007e62508e4c6bfc988699a1a64cf646e62d0c12e13f91be51e7f');
INSERT INTO "event" VALUES('r913f3d1c4b',10,'default','task.succeeded','first','{"attempt": 1}',1.79524672436631798745e+09,'edcd3a10d702c5d880858e3f218eb6d9886d54a9013648670eb5b10958400df7');
CREATE TABLE item (
	id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	scope VARCHAR NOT NULL, 
	scope_id VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	created_at FLOAT NOT NULL, 
	CONSTRAINT pk_item PRIMARY KEY (id), 
	CONSTRAINT uq_item_tenant_scope_scope_id_key UNIQUE (tenant, scope, scope_id, "key")
);
INSERT INTO "item" VALUES('a9f0641270ca450fa86f763e8736ab83','default','artifact','run','r913f3d1c4b','first',1.79524672435709118844e+09);
CREATE TABLE ledger (
	id INTEGER NOT NULL, 
	run_id VARCHAR NOT NULL, 
	call_id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	amount_nano BIGINT NOT NULL, 
	at FLOAT NOT NULL, 
	CONSTRAINT pk_ledger PRIMARY KEY (id), 
	CONSTRAINT fk_ledger_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
	CONSTRAINT uq_ledger_call_id_kind UNIQUE (call_id, kind)
);
CREATE TABLE link (
	src BIGINT NOT NULL, 
	dst BIGINT NOT NULL, 
	kind VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	created_at FLOAT NOT NULL, 
	CONSTRAINT pk_link PRIMARY KEY (src, dst, kind), 
	CONSTRAINT fk_link_dst_revision FOREIGN KEY(dst) REFERENCES revision (id) ON DELETE CASCADE, 
	CONSTRAINT fk_link_src_revision FOREIGN KEY(src) REFERENCES revision (id) ON DELETE CASCADE
);
CREATE TABLE revision (
	id INTEGER NOT NULL, 
	tenant VARCHAR NOT NULL, 
	item_id VARCHAR NOT NULL, 
	version BIGINT NOT NULL, 
	content_blob VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	run_id VARCHAR, 
	task VARCHAR, 
	attempt BIGINT, 
	created_at FLOAT NOT NULL, 
	CONSTRAINT pk_revision PRIMARY KEY (id), 
	CONSTRAINT fk_revision_item_id_item FOREIGN KEY(item_id) REFERENCES item (id) ON DELETE CASCADE, 
	CONSTRAINT uq_revision_item_id_version UNIQUE (item_id, version)
);
INSERT INTO "revision" VALUES(1,'default','a9f0641270ca450fa86f763e8736ab83',1,'de5f2cbf4c10a0d146f2a671aac363e8640fefc469ad42ac25364f19e4bc194f','active','r913f3d1c4b','first',1,1.79524672435709118844e+09);
CREATE TABLE run (
	id VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	workflow VARCHAR NOT NULL, 
	spec_blob VARCHAR NOT NULL, 
	inputs_blob VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	project_root VARCHAR NOT NULL, 
	priority BIGINT NOT NULL, 
	deadline_at FLOAT, 
	idempotency_key VARCHAR, 
	preapproved JSON NOT NULL, 
	policy JSON, 
	budget_nano BIGINT NOT NULL, 
	reserved_nano BIGINT NOT NULL, 
	settled_nano BIGINT NOT NULL, 
	engine VARCHAR, 
	epoch BIGINT NOT NULL, 
	beat BIGINT NOT NULL, 
	detached BOOLEAN NOT NULL, 
	cancel_requested BOOLEAN NOT NULL, 
	control_version BIGINT NOT NULL, 
	graph_version BIGINT NOT NULL, 
	event_seq BIGINT NOT NULL, 
	event_head VARCHAR NOT NULL, 
	created_at FLOAT NOT NULL, 
	started_at FLOAT, 
	finished_at FLOAT, 
	outputs_blob VARCHAR, 
	error JSON, 
	CONSTRAINT pk_run PRIMARY KEY (id), 
	CONSTRAINT ck_run_budget CHECK (reserved_nano >= 0 AND settled_nano >= 0 AND reserved_nano + settled_nano <= budget_nano), 
	CONSTRAINT uq_run_tenant_idempotency_key UNIQUE (tenant, idempotency_key)
);
INSERT INTO "run" VALUES('r913f3d1c4b','default','everything','e1aecd56b26b0a673c65f1fd2f8c7b483689a56f710efe08490bbad7303e32cc','c9c9d0f5e4acd5b774a9a115bf609104cbaab1758b7c96b23411dfb8675217e8','running','@ROOT@',0,NULL,NULL,'[]',NULL,1000000000,0,0,'host.03e88517.c5bfa0c65e1b',1,5,0,0,0,1,10,'edcd3a10d702c5d880858e3f218eb6d9886d54a9013648670eb5b10958400df7',1.79524672339665102962e+09,1.79524672349000501635e+09,NULL,NULL,NULL);
CREATE TABLE task (
	run_id VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	position BIGINT NOT NULL, 
	parent VARCHAR, 
	element BIGINT, 
	status VARCHAR NOT NULL, 
	attempts BIGINT NOT NULL, 
	failures BIGINT NOT NULL, 
	not_before FLOAT, 
	approval VARCHAR, 
	approval_text TEXT, 
	approval_comment TEXT, 
	inputs_blob VARCHAR, 
	output_blob VARCHAR, 
	error JSON, 
	started_at FLOAT, 
	finished_at FLOAT, 
	CONSTRAINT pk_task PRIMARY KEY (run_id, name), 
	CONSTRAINT fk_task_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
INSERT INTO "task" VALUES('r913f3d1c4b','first','default','python',0,NULL,NULL,'succeeded',1,0,NULL,NULL,NULL,NULL,NULL,'de5f2cbf4c10a0d146f2a671aac363e8640fefc469ad42ac25364f19e4bc194f',NULL,1.79524672360767889025e+09,1.79524672434790253643e+09);
INSERT INTO "task" VALUES('r913f3d1c4b','flaky','default','python',1,NULL,NULL,'running',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.7952467236226930618e+09,NULL);
INSERT INTO "task" VALUES('r913f3d1c4b','each','default','map',2,NULL,NULL,'expanded',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79524672361057662959e+09,NULL);
INSERT INTO "task" VALUES('r913f3d1c4b','ok','default','approval',3,NULL,NULL,'pending',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "task" VALUES('r913f3d1c4b','worker','default','agent',4,NULL,NULL,'pending',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "task" VALUES('r913f3d1c4b','end','default','python',5,NULL,NULL,'pending',0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "task" VALUES('r913f3d1c4b','each[0]','default','python',6,'each',0,'running',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79524672393591165544e+09,NULL);
INSERT INTO "task" VALUES('r913f3d1c4b','each[1]','default','python',7,'each',1,'running',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79524672393767595291e+09,NULL);
INSERT INTO "task" VALUES('r913f3d1c4b','each[2]','default','python',8,'each',2,'running',1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1.79524672393877339363e+09,NULL);
CREATE INDEX ix_run_status ON run (status);
CREATE INDEX ix_run_tenant_created_at ON run (tenant, created_at);
CREATE INDEX ix_call_run_id_task_step ON call (run_id, task, step);
CREATE INDEX ix_call_tenant_model_created_at ON call (tenant, model, created_at);
CREATE INDEX ix_effect_run_id_task ON effect (run_id, task);
CREATE INDEX ix_ledger_run_id ON ledger (run_id);
CREATE INDEX ix_revision_run_id_task ON revision (run_id, task);
CREATE INDEX ix_task_run_id_parent ON task (run_id, parent);
CREATE INDEX ix_link_dst ON link (dst);
COMMIT;