use crate::fixture::{Lab, T0, at, first, image_insert, name};
use domain::{ApiKeyId, OperationId, ProjectId, UserId, policy::Role};
use store::*;

pub async fn walk(lab: &Lab) {
    projects(lab).await;
    users(lab).await;
    keys(lab).await;
    tokens(lab).await;
    operations(lab).await;
}

async fn projects(lab: &Lab) {
    let (red, blue) = (lab.project("red").await, lab.project("blue").await);
    let project = ProjectInsert { id: ProjectId::new(), name: name("red"), description: String::new(), created_at: T0 };
    assert_eq!(lab.constraint(project.clone()).await, Constraint::ProjectName);
    let same_id = ProjectInsert { id: red, name: name("other"), ..project };
    assert_eq!(lab.constraint(same_id).await, Constraint::PrimaryKey(Table::Project));

    let update = ProjectUpdate { id: red, expected_generation: 1, name: name("crimson"), description: "it's".into() };
    lab.one(update.clone()).await;
    assert_eq!(lab.guard(update.clone()).await, Guard::ProjectGeneration);
    let taken = ProjectUpdate { expected_generation: 2, name: name("blue"), ..update };
    assert_eq!(lab.constraint(taken).await, Constraint::ProjectName);
    let row = lab.project_find(red).await.unwrap().unwrap();
    assert_eq!(
        (row.name.as_str(), row.description.as_str(), row.generation, row.created_at),
        ("crimson", "it's", 2, T0)
    );
    assert_eq!(lab.project_find_by_name("crimson").await.unwrap().unwrap(), row);
    assert_eq!(lab.project_find_by_name("red").await.unwrap(), None);
    assert_eq!(lab.project_find(ProjectId::new()).await.unwrap(), None);

    let ids: Vec<ProjectId> = lab.project_list(first(10)).await.unwrap().iter().map(|p| p.id).collect();
    assert_eq!(ids, [red, blue]);
    assert_eq!(lab.project_list(first(1)).await.unwrap()[0].id, red);
    let rest = lab.project_list(Page { after: Some(red.to_string()), limit: 10 }).await.unwrap();
    assert_eq!(rest.iter().map(|p| p.id).collect::<Vec<_>>(), [blue]);

    let image = image_insert(blue, "left");
    lab.all(crate::fixture::image_with_usage(image.clone())).await;
    assert_eq!(lab.guard(ProjectDelete { id: blue }).await, Guard::ProjectInUse);
    lab.all(crate::fixture::image_end(blue, image.id, 8)).await;
    lab.one(ProjectDelete { id: blue }).await;
    assert_eq!(lab.project_find(blue).await.unwrap(), None);
    assert_eq!(lab.quota_limit_find(blue).await.unwrap(), None, "the limit went with the project");
    assert_eq!(lab.guard(ProjectDelete { id: blue }).await, Guard::ProjectInUse);
}

async fn users(lab: &Lab) {
    assert_eq!(lab.user_count().await.unwrap(), 0);
    let (ann, bob) = (lab.user("ann").await, lab.user("bob").await);
    assert_eq!(lab.user_count().await.unwrap(), 2);
    let twin = UserInsert {
        id: UserId::new(),
        name: name("ann"),
        password_hash: String::new(),
        system_admin: true,
        enabled: true,
        created_at: T0,
    };
    assert_eq!(lab.constraint(twin.clone()).await, Constraint::UserName);
    assert_eq!(
        lab.constraint(UserInsert { id: ann, name: name("eve"), ..twin }).await,
        Constraint::PrimaryKey(Table::UserAccount)
    );

    let nothing = UserUpdate {
        id: ann,
        expected_generation: 1,
        password_hash: None,
        system_admin: None,
        enabled: None,
        home_project_id: None,
    };
    lab.one(UserUpdate { system_admin: Some(true), ..nothing.clone() }).await;
    assert_eq!(lab.guard(nothing.clone()).await, Guard::UserGeneration);
    lab.one(UserUpdate {
        expected_generation: 2,
        enabled: Some(false),
        password_hash: Some("new".into()),
        ..nothing.clone()
    })
    .await;
    let row = lab.user_find(ann).await.unwrap().unwrap();
    assert_eq!((row.system_admin, row.enabled, row.password_hash.as_str(), row.generation), (true, false, "new", 3));
    assert_eq!(row.session_version, 2, "only what ends sessions raises it");
    for (password_hash, enabled, raised) in [(Some("x"), None, 1), (None, Some(false), 1), (None, Some(true), 0)] {
        let before = lab.user_find(ann).await.unwrap().unwrap();
        let expected_generation = before.generation;
        let change = UserUpdate {
            expected_generation,
            password_hash: password_hash.map(Into::into),
            enabled,
            ..nothing.clone()
        };
        lab.one(change).await;
        let after = lab.user_find(ann).await.unwrap().unwrap();
        assert_eq!(after.session_version - before.session_version, raised, "{password_hash:?} {enabled:?}");
    }
    let row = lab.user_find(ann).await.unwrap().unwrap();
    assert_eq!(lab.user_find_by_name("ann").await.unwrap().unwrap(), row);
    assert_eq!(lab.user_list(first(9)).await.unwrap().iter().map(|u| u.id).collect::<Vec<_>>(), [ann, bob]);

    let project = lab.project("shared").await;
    let bind = |user_id, role| RoleBindingPut { project_id: project, user_id, role, created_at: T0 };
    lab.all(Unit::new().op(bind(ann, Role::Reader)).op(bind(bob, Role::Admin))).await;
    lab.one(bind(ann, Role::Member)).await;
    let missing = RoleBindingPut { project_id: ProjectId::new(), ..bind(ann, Role::Reader) };
    assert_eq!(lab.constraint(missing).await, Constraint::ForeignKey(ForeignKey::RoleBindingProject));
    assert_eq!(
        lab.constraint(bind(UserId::new(), Role::Reader)).await,
        Constraint::ForeignKey(ForeignKey::RoleBindingUser)
    );
    let of_ann = lab.role_binding_list_of_user(ann).await.unwrap();
    assert_eq!(of_ann.iter().map(|b| (b.project_id, b.role)).collect::<Vec<_>>(), [(project, Role::Member)]);
    let members = lab.role_binding_list_of_project(project).await.unwrap();
    let members: Vec<_> = members.iter().map(|m| (m.user_id, m.user_name.as_str(), m.role)).collect();
    assert_eq!(members, [(ann, "ann", Role::Member), (bob, "bob", Role::Admin)]);
    assert_eq!(lab.project_list_of_user(ann, first(9)).await.unwrap()[0].id, project);
    let home = async || lab.user_find(ann).await.unwrap().unwrap().home_project_id;
    let (first_home, other) = (project, ProjectId::new());
    lab.one(UserHomeDefault { user_id: ann, project_id: first_home }).await;
    lab.one(UserHomeDefault { user_id: ann, project_id: other }).await;
    assert_eq!(home().await, Some(first_home), "a home that is there stays");
    lab.one(UserHomeClear { user_id: ann, project_id: other }).await;
    assert_eq!(home().await, Some(first_home));
    lab.one(UserHomeClear { user_id: ann, project_id: first_home }).await;
    assert_eq!(home().await, None);
    let expected_generation = lab.user_find(ann).await.unwrap().unwrap().generation;
    lab.one(UserUpdate { expected_generation, home_project_id: Some(other), ..nothing }).await;
    assert_eq!(home().await, Some(other));
    lab.one(RoleBindingDelete { project_id: project, user_id: ann }).await;
    assert!(lab.project_list_of_user(ann, first(9)).await.unwrap().is_empty());

    lab.one(UserDelete { id: bob }).await;
    assert_eq!(lab.user_find(bob).await.unwrap(), None);
    assert!(lab.role_binding_list_of_project(project).await.unwrap().is_empty(), "bindings went with the user");
}

async fn keys(lab: &Lab) {
    let (user, other) = (lab.user("key-owner").await, lab.user("key-other").await);
    let project = lab.project("key-project").await;
    let key = ApiKeyInsert {
        id: ApiKeyId::new(),
        user_id: user,
        project_id: Some(project),
        name: name("ci"),
        prefix: "abcd".into(),
        secret_hash: "00".into(),
        role: Some(Role::Member),
        expires_at: Some(at(5)),
        created_at: T0,
        keys_max: 2,
    };
    lab.one(key.clone()).await;
    let free = ApiKeyInsert {
        id: ApiKeyId::new(),
        project_id: None,
        name: name("free"),
        prefix: "efgh".into(),
        role: None,
        expires_at: None,
        ..key.clone()
    };
    lab.one(free.clone()).await;
    let third = ApiKeyInsert { id: ApiKeyId::new(), name: name("third"), prefix: "ijkl".into(), ..free.clone() };
    assert_eq!(lab.guard(third).await, Guard::ApiKeyQuota);
    let key = ApiKeyInsert { keys_max: 9, ..key };
    let fresh = |change: fn(ApiKeyInsert) -> ApiKeyInsert| change(ApiKeyInsert { id: ApiKeyId::new(), ..key.clone() });
    assert_eq!(lab.constraint(fresh(|k| ApiKeyInsert { prefix: "x".into(), ..k })).await, Constraint::ApiKeyName);
    assert_eq!(lab.constraint(fresh(|k| ApiKeyInsert { name: name("x"), ..k })).await, Constraint::ApiKeyPrefix);
    let adrift =
        fresh(|k| ApiKeyInsert { name: name("x"), prefix: "x".into(), project_id: Some(ProjectId::new()), ..k });
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::ApiKeyProject));
    let nobodys = fresh(|k| ApiKeyInsert { user_id: UserId::new(), prefix: "x".into(), ..k });
    assert_eq!(lab.constraint(nobodys).await, Constraint::ForeignKey(ForeignKey::ApiKeyUser));

    let row = lab.api_key_find_by_prefix("abcd").await.unwrap().unwrap();
    assert_eq!((row.project_id, row.role, row.expires_at), (Some(project), Some(Role::Member), Some(at(5))));
    let row = lab.api_key_find_by_prefix("efgh").await.unwrap().unwrap();
    assert_eq!((row.project_id, row.role, row.expires_at), (None, None, None));
    assert_eq!(lab.api_key_list(user).await.unwrap().iter().map(|k| k.id).collect::<Vec<_>>(), [key.id, free.id]);
    lab.one(ApiKeyDelete { id: key.id, user_id: other }).await;
    assert_eq!(lab.api_key_list(user).await.unwrap().len(), 2, "another's key isn't deleted");
    lab.one(ApiKeyDelete { id: key.id, user_id: user }).await;
    assert_eq!(lab.api_key_find_by_prefix("abcd").await.unwrap(), None);
    lab.one(ApiKeyUserRevoke { user_id: other }).await;
    assert_eq!(lab.api_key_list(user).await.unwrap().len(), 1, "another's keys stay");
    lab.one(ApiKeyUserRevoke { user_id: user }).await;
    assert!(lab.api_key_list(user).await.unwrap().is_empty());
}

async fn tokens(lab: &Lab) {
    let user = lab.user("token-owner").await;
    let token = |hash: &str, family: &str, expires| RefreshTokenInsert {
        secret_hash: hash.into(),
        family: family.into(),
        user_id: user,
        expires_at: expires,
        created_at: T0,
    };
    lab.all(Unit::new().op(token("a", "one", at(10))).op(token("b", "two", at(10))).op(token("c", "two", at(99))))
        .await;
    assert_eq!(lab.constraint(token("a", "x", at(1))).await, Constraint::PrimaryKey(Table::RefreshToken));
    let nobodys = RefreshTokenInsert { user_id: UserId::new(), ..token("z", "z", at(1)) };
    assert_eq!(lab.constraint(nobodys).await, Constraint::ForeignKey(ForeignKey::RefreshTokenUser));
    let used = |hash: &str, used_at| RefreshTokenUse { secret_hash: hash.into(), used_at };
    lab.one(used("a", at(9))).await;
    assert_eq!(lab.guard(used("a", at(9))).await, Guard::RefreshToken, "a token is used once");
    assert_eq!(lab.guard(used("b", at(10))).await, Guard::RefreshToken, "it has expired");
    assert_eq!(lab.guard(used("none", at(1))).await, Guard::RefreshToken);
    assert_eq!(lab.refresh_token_find("a").await.unwrap().unwrap().used_at, Some(at(9)));
    lab.one(RefreshExpire { before: at(11) }).await;
    assert_eq!(lab.refresh_token_find("b").await.unwrap(), None);
    lab.one(token("d", "three", at(99))).await;
    lab.one(RefreshFamilyRevoke { family: "two".into() }).await;
    assert_eq!(lab.refresh_token_find("c").await.unwrap(), None);
    assert!(lab.refresh_token_find("d").await.unwrap().is_some());
    lab.one(RefreshUserRevoke { user_id: user }).await;
    assert_eq!(lab.refresh_token_find("d").await.unwrap(), None);

    let mut many = Unit::new();
    for i in 0..260 {
        many.push(RefreshTokenInsert { created_at: at(i), ..token(&format!("many-{i}"), "many", at(999)) });
    }
    lab.all(many).await;
    for i in 0..100 {
        lab.one(used(&format!("many-{i}"), at(900))).await;
    }
    lab.one(RefreshUserTrim { user_id: user }).await;
    let kept = async |i: u32| lab.refresh_token_find(&format!("many-{i}")).await.unwrap().is_some();
    assert!(kept(100).await && kept(259).await, "the unused ones stay");
    assert!(kept(99).await && kept(60).await && !kept(59).await && !kept(0).await, "of the used ones the newest");
    lab.one(RefreshUserRevoke { user_id: user }).await;

    let key = |kid: &str, created_at| SigningKeyInsert {
        kid: kid.into(),
        wrapped_secret: "w".into(),
        public_key: "p".into(),
        created_at,
    };
    lab.all(Unit::new().op(key("k2", at(2))).op(key("k1", at(1)))).await;
    assert_eq!(lab.constraint(key("k1", T0)).await, Constraint::PrimaryKey(Table::SigningKey));
    lab.one(SigningKeyRetire { kid: "k1".into(), retired_at: at(3) }).await;
    lab.one(SigningKeyRetire { kid: "k1".into(), retired_at: at(9) }).await;
    let keys: Vec<_> = lab.signing_key_list().await.unwrap().into_iter().map(|k| (k.kid, k.retired_at)).collect();
    assert_eq!(keys, [("k1".to_owned(), Some(at(3))), ("k2".to_owned(), None)]);
}

async fn operations(lab: &Lab) {
    let operation_id = OperationId::new();
    let key = IdempotencyInsert {
        principal: "user:1".into(),
        idem_key: "k".into(),
        body_hash: "h".into(),
        operation_id,
        object_ids: vec!["a".into(), "b".into()],
        created_at: T0,
    };
    lab.one(key.clone()).await;
    assert_eq!(lab.constraint(key.clone()).await, Constraint::IdempotencyRepeated);
    let row = lab.idempotency_find("user:1", "k").await.unwrap().unwrap();
    assert_eq!((row.operation_id, row.body_hash.as_str(), row.object_ids.len()), (operation_id, "h", 2));
    assert_eq!(lab.idempotency_find("user:2", "k").await.unwrap(), None);
    lab.one(IdempotencyInsert { idem_key: "k2".into(), ..key.clone() }).await;
    for (principal, most, count) in [("user:1", 10, 2), ("user:1", 1, 1), ("user:2", 10, 0)] {
        assert_eq!(lab.idempotency_count(principal, most).await.unwrap(), count, "{principal} {most}");
    }

    let (outcome, created_at) = (|text: &str| text.to_owned(), T0);
    let (identity, compute, storage) = (OperationId::new(), OperationId::new(), OperationId::new());
    let unit = || {
        Unit::new()
            .op(IdentityOperationInsert { id: identity, outcome: outcome("i"), created_at })
            .op(ComputeOperationInsert { id: compute, outcome: outcome("c"), created_at })
            .op(StorageOperationInsert { id: storage, outcome: outcome("s"), created_at })
    };
    lab.all(unit()).await;
    for op in unit().ops() {
        assert_eq!(lab.constraint(op.clone()).await, Constraint::OperationRepeated);
    }
    // A repeat is a repeat, even when its change would also break something else.
    let taken =
        ProjectInsert { id: ProjectId::new(), name: name("crimson"), description: String::new(), created_at: T0 };
    let repeat = IdentityOperationInsert { id: identity, outcome: String::new(), created_at };
    match lab.try_commit(Unit::new().op(taken).op(repeat)).await {
        Err(CommitError::Constraint(Constraint::OperationRepeated)) => {}
        other => panic!("not told as a repeat: {other:?}"),
    }
    for (table, id, text) in [
        (OperationTable::Identity, identity, "i"),
        (OperationTable::Compute, compute, "c"),
        (OperationTable::Storage, storage, "s"),
    ] {
        assert_eq!(lab.operation_find(table, id).await.unwrap().as_deref(), Some(text));
        assert_eq!(lab.operation_find(table, OperationId::new()).await.unwrap(), None);
    }
    lab.all(
        Unit::new()
            .op(IdempotencyExpire { before: at(1) })
            .op(IdentityOperationExpire { before: at(1) })
            .op(ComputeOperationExpire { before: at(1) })
            .op(StorageOperationExpire { before: T0 }),
    )
    .await;
    assert_eq!(lab.idempotency_find("user:1", "k").await.unwrap(), None);
    assert_eq!(lab.operation_find(OperationTable::Identity, identity).await.unwrap(), None);
    assert_eq!(lab.operation_find(OperationTable::Compute, compute).await.unwrap(), None);
    assert!(lab.operation_find(OperationTable::Storage, storage).await.unwrap().is_some(), "not before its time");
    lab.one(StorageOperationExpire { before: at(1) }).await;
}
